//! The record of a queue's settings, which is what their table says.

use std::{collections::BTreeMap, time::Duration};

use bytes::{Buf, BufMut};
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, double, skip_field, uint64},
};

use super::micros;
use crate::queue::{Field, Kind, Overrides, Rate, Value};

/// `queue.overrides`: the settings that an operator has changed, by the numbers that
/// [`Field::record_number`] gives them. Counts are whole numbers, spans whole microseconds,
/// and of a rate there are the starts per second and the burst; each is there if its
/// setting was changed. For limits that can be lifted, 0 means that they are.
#[derive(Debug, Default, PartialEq)]
pub struct QueueRecord(BTreeMap<u32, Number>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    /// `uint64`, which is read and written as `uint32` is.
    Whole(u64),
    /// `double`
    Real(f64),
}

impl QueueRecord {
    /// As bytes for the row.
    pub fn to_bytes(overrides: &Overrides) -> Vec<u8> {
        let mut record = Self::default();
        for field in Field::ALL {
            let number = field.record_number();
            let first = match overrides.get(field) {
                None => continue,
                Some(Value::Count(count)) => Number::Whole(count),
                Some(Value::Duration(span)) => Number::Whole(micros(span)),
                Some(Value::Rate(None)) => Number::Real(0.0),
                Some(Value::Rate(Some(Rate { per_second, burst }))) => {
                    record.0.insert(number + 1, Number::Whole(burst.into()));
                    Number::Real(per_second)
                }
            };
            record.0.insert(number, first);
        }
        record.encode_to_vec()
    }

    /// From the bytes of a row.
    pub fn from_bytes(bytes: &[u8]) -> Result<Overrides, prost::DecodeError> {
        let record = Self::decode(bytes)?;
        let mut overrides = Overrides::default();
        for field in Field::ALL {
            overrides.set(field, record.value(field));
        }
        Ok(overrides)
    }

    fn value(&self, field: Field) -> Option<Value> {
        let number = field.record_number();
        let whole = |number| match self.0.get(&number) {
            Some(Number::Whole(whole)) => Some(*whole),
            _ => None,
        };
        match (field.kind(), self.0.get(&number)?) {
            (Kind::Rate, Number::Real(per_second)) => {
                let burst = whole(number + 1).unwrap_or_default().max(1);
                let burst = u32::try_from(burst).unwrap_or(u32::MAX);
                let rate = Rate { per_second: *per_second, burst };
                Some(Value::Rate(Some(rate).filter(|rate| rate.per_second > 0.0)))
            }
            (Kind::Duration(_), Number::Whole(micros)) => {
                Some(Value::Duration(Duration::from_micros(*micros)))
            }
            (_, Number::Whole(count)) => Some(Value::Count(*count)),
            (_, Number::Real(_)) => None,
        }
    }

    /// What the record has under `number`, as a zero; nothing if no setting has it.
    fn shape(number: u32) -> Option<Number> {
        Field::ALL.into_iter().find_map(|field| match (field.kind(), field.record_number()) {
            (Kind::Rate, rate) if number == rate => Some(Number::Real(0.0)),
            (Kind::Rate, rate) if number == rate + 1 => Some(Number::Whole(0)),
            (_, own) if number == own => Some(Number::Whole(0)),
            _ => None,
        })
    }
}

/// As the derived one of a message with all of these fields would be.
impl prost::Message for QueueRecord {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for (number, value) in &self.0 {
            match value {
                Number::Whole(whole) => uint64::encode(*number, whole, buffer),
                Number::Real(real) => double::encode(*number, real, buffer),
            }
        }
    }

    fn merge_field(
        &mut self,
        number: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        let Some(mut value) = Self::shape(number) else {
            return skip_field(wire_type, number, buffer, context);
        };
        match &mut value {
            Number::Whole(whole) => uint64::merge(wire_type, whole, buffer, context)?,
            Number::Real(real) => double::merge(wire_type, real, buffer, context)?,
        }
        self.0.insert(number, value);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        let len = |(number, value): (&u32, &Number)| match value {
            Number::Whole(whole) => uint64::encoded_len(*number, whole),
            Number::Real(real) => double::encoded_len(*number, real),
        };
        self.0.iter().map(len).sum()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_queue_come_back_as_they_went() {
        let all = Overrides {
            max_tasks: Some(7),
            max_bytes: Some(1 << 20),
            max_running: Some(Some(3)),
            rate: Some(Some(Rate { per_second: 0.5, burst: 9 })),
            weight: Some(10),
            max_attempts: Some(4),
            initial_backoff: Some(Duration::from_millis(5)),
            max_backoff: Some(Duration::from_secs(5)),
            attempt_timeout: Some(Duration::from_mins(5)),
        };
        let lifted =
            Overrides { max_running: Some(None), rate: Some(None), ..Overrides::default() };
        for overrides in [all, lifted, Overrides::default()] {
            let bytes = QueueRecord::to_bytes(&overrides);
            assert_eq!(QueueRecord::from_bytes(&bytes), Ok(overrides));
        }
    }

    #[test]
    fn what_no_setting_has_is_passed_over_and_what_is_none_is_damage() {
        let weight = QueueRecord::to_bytes(&Overrides { weight: Some(3), ..Overrides::default() });
        let mut later = weight.clone();
        uint64::encode(1_000, &7, &mut later);
        double::encode(1_001, &0.5, &mut later);
        assert_eq!(QueueRecord::from_bytes(&later), QueueRecord::from_bytes(&weight));
        let mut wrong = Vec::new();
        double::encode(Field::Weight.record_number(), &3.0, &mut wrong);
        for damaged in [&wrong, &later[..later.len() - 1]] {
            assert!(QueueRecord::from_bytes(damaged).is_err(), "{damaged:?}");
        }
    }
}
