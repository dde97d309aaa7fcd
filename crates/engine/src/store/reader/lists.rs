//! Whose list is read next.
//!
//! Owns the order in which lists wait for a thread, and the bounds on how many do: one
//! address after the other, of each address one connection after the other, and of each
//! connection what came first. So nobody waits for more than one list of anybody else. Must
//! not know what is read.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use super::Question;
use crate::store::Asker;

/// Lists that wait for a thread.
const MAX_WAITING: usize = 10_000;

/// Those of one address.
const MAX_WAITING_OF_ADDRESS: usize = 1_000;

/// As many lists wait as may: of this address, or in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The lists that wait, and the threads that wait for them.
#[derive(Debug, Default)]
pub struct Lists {
    state: Mutex<State>,
    has_more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    turns: Turns<Waiting>,
    is_closed: bool,
}

/// A list that waits.
struct Waiting {
    question: Question,
    /// Gone if whoever asked has gone.
    asker: Weak<()>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl Lists {
    /// Puts a question where it waits for its turn, for as long as `waits` has an owner.
    ///
    /// # Errors
    /// As many wait as may.
    pub fn push(&self, asker: Asker, question: Question, waits: Weak<()>) -> Result<(), TooMany> {
        let waiting = Waiting { question, asker: waits };
        self.lock().turns.push(asker, waiting, |other| other.asker.strong_count() == 0)?;
        self.has_more.notify_one();
        Ok(())
    }

    /// The next question, when there is one; `None` when there will be none.
    pub fn next(&self) -> Option<Question> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.turns.pop() {
                return Some(next.question);
            }
            if state.is_closed {
                return None;
            }
            state = self.has_more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nobody will ask any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.has_more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits, in turns.
#[derive(Debug)]
struct Turns<Q> {
    addresses: Ring<Option<IpAddr>, OfAddress<Q>>,
    waiting: usize,
}

#[derive(Debug)]
struct OfAddress<Q> {
    connections: Ring<Option<SocketAddr>, VecDeque<Q>>,
    waiting: usize,
}

impl<Q> Turns<Q> {
    /// `is_abandoned` tells what need not wait any more; it is looked for when there is no
    /// other room.
    fn push(
        &mut self,
        Asker(asker): Asker,
        one: Q,
        is_abandoned: impl Fn(&Q) -> bool,
    ) -> Result<(), TooMany> {
        let address = asker.map(|asker| asker.ip());
        if !self.has_room(address) {
            self.forget(is_abandoned);
            if !self.has_room(address) {
                return Err(TooMany);
            }
        }
        let of_address = self.addresses.entry(address);
        of_address.connections.entry(asker).push_back(one);
        of_address.waiting += 1;
        self.waiting += 1;
        Ok(())
    }

    fn has_room(&self, address: Option<IpAddr>) -> bool {
        let of_address = self.addresses.members.get(&address).map_or(0, |of| of.waiting);
        self.waiting < MAX_WAITING && of_address < MAX_WAITING_OF_ADDRESS
    }

    fn forget(&mut self, is_abandoned: impl Fn(&Q) -> bool) {
        self.addresses.retain(|of_address| {
            of_address.connections.retain(|queue| {
                queue.retain(|one| !is_abandoned(one));
                !queue.is_empty()
            });
            let left = of_address.connections.members.values().map(VecDeque::len).sum();
            of_address.waiting = left;
            left > 0
        });
        self.waiting = self.addresses.members.values().map(|of| of.waiting).sum();
    }

    fn pop(&mut self) -> Option<Q> {
        let next = self.addresses.turn(|of_address| {
            let next = of_address.connections.turn(|queue| (queue.pop_front(), queue.is_empty()));
            of_address.waiting -= usize::from(next.is_some());
            (next, of_address.waiting == 0)
        });
        self.waiting -= usize::from(next.is_some());
        next
    }
}

impl<Q> Default for Turns<Q> {
    fn default() -> Self {
        Self { addresses: Ring::default(), waiting: 0 }
    }
}

impl<Q> Default for OfAddress<Q> {
    fn default() -> Self {
        Self { connections: Ring::default(), waiting: 0 }
    }
}

/// Members that take turns. One that has nothing left is none.
#[derive(Debug)]
struct Ring<K, V> {
    members: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Ring<K, V> {
    fn default() -> Self {
        Self { members: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash, V: Default> Ring<K, V> {
    /// The member; a new one has its turn after all others.
    fn entry(&mut self, key: K) -> &mut V {
        self.members.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            V::default()
        })
    }

    /// Gives the next member its turn, which tells also whether it has nothing left.
    fn turn<T>(&mut self, take: impl FnOnce(&mut V) -> (Option<T>, bool)) -> Option<T> {
        let key = self.order.pop_front()?;
        let (taken, is_done) = take(self.members.get_mut(&key)?);
        if is_done {
            self.members.remove(&key);
        } else {
            self.order.push_back(key);
        }
        taken
    }

    fn retain(&mut self, mut keep: impl FnMut(&mut V) -> bool) {
        self.members.retain(|_, member| keep(member));
        self.order.retain(|key| self.members.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(address: u8, port: u16) -> Asker {
        Asker(Some((IpAddr::from([10, 0, 0, address]), port).into()))
    }

    fn push(turns: &mut Turns<&'static str>, asker: Asker, one: &'static str) {
        assert_eq!(turns.push(asker, one, |_| false), Ok(()), "{one}");
    }

    fn rest(turns: &mut Turns<&'static str>) -> Vec<&'static str> {
        let rest = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(turns.waiting, 0);
        assert!(turns.addresses.members.is_empty() && turns.addresses.order.is_empty());
        rest
    }

    #[test]
    fn addresses_take_turns_and_so_do_the_connections_of_each() {
        let mut turns = Turns::default();
        for one in ["a1", "a2", "a3", "a4"] {
            push(&mut turns, asker(1, 1), one);
        }
        push(&mut turns, asker(1, 2), "b1");
        push(&mut turns, asker(1, 2), "b2");
        push(&mut turns, asker(2, 1), "c1");
        push(&mut turns, Asker(None), "own");
        push(&mut turns, asker(2, 1), "c2");
        assert_eq!(rest(&mut turns), ["a1", "c1", "own", "b1", "c2", "a2", "b2", "a3", "a4"]);
    }

    #[test]
    fn whoever_comes_waits_for_one_of_each_other_at_most() {
        let mut turns = Turns::default();
        for address in 0..4 {
            for _ in 0..MAX_WAITING_OF_ADDRESS {
                push(&mut turns, asker(address, 1), "long");
            }
        }
        push(&mut turns, asker(9, 1), "mine");
        let before = std::iter::from_fn(|| turns.pop()).take_while(|one| *one != "mine").count();
        assert_eq!(before, 4);
    }

    #[test]
    fn who_asks_too_much_is_refused_and_keeps_nobody_else_out() {
        let mut turns = Turns::default();
        for _ in 0..MAX_WAITING_OF_ADDRESS {
            push(&mut turns, asker(1, 1), "kept");
        }
        // Another connection of the same address is no way around it.
        assert_eq!(turns.push(asker(1, 2), "more", |_| false), Err(TooMany));
        push(&mut turns, asker(2, 1), "other");
        // What nobody waits for any more makes room.
        assert_eq!(turns.push(asker(1, 2), "more", |one| *one == "kept"), Ok(()));
        assert_eq!(rest(&mut turns), ["other", "more"]);
    }

    #[test]
    fn all_together_are_bounded() {
        let mut turns = Turns::default();
        for number in 0..MAX_WAITING {
            let address = u8::try_from(number % 100).expect("small");
            push(&mut turns, asker(address, 1), "one");
        }
        assert_eq!(turns.push(asker(200, 1), "more", |_| false), Err(TooMany));
        assert_eq!(rest(&mut turns).len(), MAX_WAITING);
    }
}
