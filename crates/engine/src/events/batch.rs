//! What one commit tells: events that were encoded once.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::BatchIndex;
use crate::event::Seq;

/// The events of one commit, each encoded as it stands in a response: the field
/// `WatchEventsResponse.events`, with its tag and length. So a response is
/// joined from pieces of batches without encoding anything again, and the same
/// bytes are what the store keeps.
///
/// Clones are the same batch: every watcher has one, for a moment.
#[derive(Clone, Debug)]
pub struct EventBatch(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    first: Seq,
    last: Seq,
    data: Bytes,
    ended: Arc<[u64]>,
    /// Parsed from the data by the first who asks.
    index: OnceLock<Option<BatchIndex>>,
}

/// The index says nothing that the data does not.
impl PartialEq for EventBatch {
    fn eq(&self, other: &Self) -> bool {
        let parts = |batch: &Self| (batch.0.first, batch.0.last);
        parts(self) == parts(other) && self.0.data == other.0.data && self.0.ended == other.0.ended
    }
}

impl Eq for EventBatch {}

impl EventBatch {
    /// A batch of the events `first` to `last`; `ended` are the numbers of the
    /// tasks that ended by them (empty when read from history).
    #[must_use]
    pub fn new(first: Seq, last: Seq, data: Bytes, ended: Box<[u64]>) -> Self {
        Self::of(first, last, data, ended.into())
    }

    /// One batch of those that follow one another, whatever its size, as versions before
    /// [`super::MAX_BATCH_BYTES`] stored them. `None` of none.
    pub fn joined(batches: &[Self]) -> Option<Self> {
        let (first, last) = (batches.first()?.first(), batches.last()?.last());
        let data: Vec<u8> = batches.iter().flat_map(|batch| batch.data().to_vec()).collect();
        let ended: Vec<u64> = batches.iter().flat_map(|batch| batch.ended().to_vec()).collect();
        Some(Self::new(first, last, data.into(), ended.into()))
    }

    fn of(first: Seq, last: Seq, data: Bytes, ended: Arc<[u64]>) -> Self {
        Self(Arc::new(Parts { first, last, data, ended, index: OnceLock::new() }))
    }

    /// Its first event.
    pub fn first(&self) -> Seq {
        self.0.first
    }

    /// Its last event.
    pub fn last(&self) -> Seq {
        self.0.last
    }

    /// Its events, encoded.
    pub fn data(&self) -> &Bytes {
        &self.0.data
    }

    /// Where which event lies; `None` if the encoding is damaged, or has another
    /// number of events than it should.
    pub fn index(&self) -> Option<&BatchIndex> {
        let indexed = || {
            let index = BatchIndex::of(self.data())?;
            let count = (self.last().0 + 1).checked_sub(self.first().0)?;
            (index.events().len() as u64 == count).then_some(index)
        };
        self.0.index.get_or_init(indexed).as_ref()
    }

    /// Numbers of the tasks that ended by it.
    pub fn ended(&self) -> &[u64] {
        &self.0.ended
    }

    /// Takes events off the front: as many as stay within `max_bytes`, at least
    /// one. What remains is `None` if that is all. Returns `None` for the piece
    /// if the encoding is damaged.
    #[must_use]
    pub fn split(self, max_bytes: usize) -> (Option<Self>, Option<Self>) {
        if self.data().len() <= max_bytes {
            return (Some(self), None);
        }
        let mut end = 0;
        let mut count = 0;
        while let Some(length) = entry_length(&self.data()[end..]) {
            if count > 0 && end + length > max_bytes {
                break;
            }
            end += length;
            count += 1;
        }
        if count == 0 {
            return (None, None);
        }
        let next = Seq(self.first().0 + count);
        let piece = Self::of(
            self.first(),
            next.previous(),
            self.data().slice(..end),
            Arc::clone(&self.0.ended),
        );
        let rest = (next <= self.last())
            .then(|| Self::of(next, self.last(), self.data().slice(end..), Arc::default()));
        (Some(piece), rest)
    }

    /// Without the events up to `after`; `None` if nothing is left, or if the
    /// encoding is damaged.
    #[must_use]
    pub fn after(self, after: Seq) -> Option<Self> {
        if after < self.first() {
            return Some(self);
        }
        let mut start = 0;
        for _ in self.first().0..=after.0.min(self.last().0) {
            start += entry_length(&self.data()[start..])?;
        }
        let first = after.next();
        (first <= self.last()).then(|| {
            Self::of(first, self.last(), self.data().slice(start..), Arc::clone(&self.0.ended))
        })
    }
}

/// Bytes of the length-delimited field (one tag byte, length, body) that
/// `data` begins with; `None` if there is none whole.
pub(super) fn entry_length(data: &[u8]) -> Option<usize> {
    let mut rest = data.get(1..)?;
    let body = prost::encoding::decode_varint(&mut rest).ok()?;
    let head = data.len() - rest.len();
    let length = head.checked_add(usize::try_from(body).ok()?)?;
    (length <= data.len()).then_some(length)
}
