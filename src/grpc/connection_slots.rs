//! Which connections are served, and how.
//!
//! Owns the count of connections, in all and by address, and the few slots beyond them
//! that are kept for operators: whoever comes when nothing else is free gets one of these,
//! and is served health checks, `AdminService` and reflection there, nothing else. So a
//! probe, a drain and a look at what is going on are never shut out, whoever holds the
//! other slots. Must not know HTTP/2.

use std::{
    collections::HashMap,
    fmt,
    future::ready,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use super::status;

/// Connections beyond `max_connections`, for operators.
pub const OPERATOR_CONNECTIONS: u64 = 16;
/// Of these, from one address.
const OPERATOR_CONNECTIONS_PER_ADDRESS: usize = 4;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub connections: usize,
    /// From one address.
    pub per_address: usize,
}

/// All slots. Clones are the same.
#[derive(Clone, Debug)]
pub struct ConnectionSlots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    ordinary: usize,
    by_address: HashMap<Address, usize>,
    /// The oldest first.
    operators: Vec<Operator>,
    next_id: u64,
}

#[derive(Debug)]
struct Operator {
    id: u64,
    address: Address,
    /// Calls that are being served.
    calls: usize,
    leave: CancellationToken,
}

/// A slot, which is free again when this is dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    slots: ConnectionSlots,
    address: Address,
    /// One of those for operators.
    operator: Option<u64>,
}

/// Why there was no ordinary slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowded {
    /// There are as many connections as may be.
    Server(usize),
    /// There are as many from this address as may be.
    Address(usize),
}

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(limit) => write!(f, "{limit} connections are open, which is the limit"),
            Self::Address(limit) => {
                write!(f, "{limit} connections are open from this address, which is the limit")
            }
        }
    }
}

/// Who counts as one client: an IPv4 address, or the 64 bits of an IPv6 address that a
/// network gives to one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(IpAddr);

impl Address {
    /// Of the client at `peer`. An IPv4 client of an IPv6 listener is one of IPv4.
    pub fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Self(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

impl ConnectionSlots {
    /// None is taken.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, taken: Mutex::default() }))
    }

    /// A slot for a connection from `peer`; else why there is none.
    ///
    /// # Errors
    /// There are too many connections, in all or from there.
    pub fn take(&self, peer: IpAddr) -> Result<ConnectionSlot, Crowded> {
        let Limits { connections, per_address } = self.0.limits;
        let address = Address::of(peer);
        let mut taken = self.taken();
        if taken.ordinary >= connections {
            return Err(Crowded::Server(connections));
        }
        let from_there = taken.by_address.get(&address).copied().unwrap_or_default();
        if from_there >= per_address {
            return Err(Crowded::Address(per_address));
        }
        taken.ordinary += 1;
        taken.by_address.insert(address, from_there + 1);
        Ok(ConnectionSlot { slots: self.clone(), address, operator: None })
    }

    /// A slot for an operator, for whoever comes when there is no other. The oldest one that
    /// serves no call has to `leave` for it; among those of the same address, if that
    /// has as many as it may. `None` if all of these serve a call.
    pub fn take_for_operator(
        &self,
        peer: IpAddr,
        leave: &CancellationToken,
    ) -> Option<ConnectionSlot> {
        let address = Address::of(peer);
        let mut taken = self.taken();
        let operators = &mut taken.operators;
        let from_there = operators.iter().filter(|other| other.address == address).count();
        let only_there = from_there >= OPERATOR_CONNECTIONS_PER_ADDRESS;
        if only_there || operators.len() as u64 >= OPERATOR_CONNECTIONS {
            let may_leave =
                |other: &Operator| other.calls == 0 && (!only_there || other.address == address);
            let oldest = operators.iter().position(may_leave)?;
            operators.remove(oldest).leave.cancel();
        }
        let id = taken.next_id;
        taken.next_id += 1;
        let leave = leave.clone();
        taken.operators.push(Operator { id, address, calls: 0, leave });
        Some(ConnectionSlot { slots: self.clone(), address, operator: Some(id) })
    }

    /// Held by one task for a moment, and never across an await.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_calls(&self, id: u64, change: impl FnOnce(&mut usize)) -> bool {
        let mut taken = self.taken();
        // It is gone if its connection had to leave.
        let operator = taken.operators.iter_mut().find(|operator| operator.id == id);
        operator.map(|operator| change(&mut operator.calls)).is_some()
    }
}

impl ConnectionSlot {
    /// Whether it is one of those for operators.
    pub fn is_for_operators(&self) -> bool {
        self.operator.is_some()
    }

    /// A call is served here, for as long as the guard lives: the slot is not given to
    /// somebody else meanwhile. `None` if it has been already.
    pub fn serve_call(&self) -> Option<ServedCall> {
        let id = self.operator?;
        let slots = self.slots.clone();
        slots.change_calls(id, |calls| *calls += 1).then_some(ServedCall { slots, id })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        if let Some(id) = self.operator {
            return taken.operators.retain(|operator| operator.id != id);
        }
        taken.ordinary -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// See [`ConnectionSlot::serve_call`].
#[derive(Debug)]
pub struct ServedCall {
    slots: ConnectionSlots,
    id: u64,
}

impl Drop for ServedCall {
    fn drop(&mut self) {
        self.slots.change_calls(self.id, |calls| *calls -= 1);
    }
}

/// A service on a connection that has a slot. One for operators serves calls that end by
/// themselves and do none of the work that the other connections are for; other calls are
/// answered with [`status::too_many_connections`], and the connection is closed after that:
/// its client is to come back, and may find an ordinary slot then.
#[derive(Clone)]
pub struct SlotService<S> {
    inner: S,
    slot: Arc<ConnectionSlot>,
    leave: CancellationToken,
}

impl<S> SlotService<S> {
    /// `inner`, on a connection that leaves once `leave` is cancelled.
    pub fn new(inner: S, slot: ConnectionSlot, leave: CancellationToken) -> Self {
        Self { inner, slot: Arc::new(slot), leave }
    }
}

impl<S, B> Service<Request<B>> for SlotService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.slot.is_for_operators() {
            return Either::Left(self.inner.call(request));
        }
        match Operation::of(request.uri().path()) {
            Some(Operation::Short) => {
                let served = self.slot.serve_call();
                let call = self.inner.call(request);
                Either::Right(Box::pin(async move {
                    let answer = call.await;
                    drop(served);
                    answer
                }))
            }
            Some(Operation::Stream) => Either::Left(self.inner.call(request)),
            None => {
                self.leave.cancel();
                let refused = status::too_many_connections().into_http();
                Either::Right(Box::pin(ready(Ok(refused))))
            }
        }
    }
}

/// What operators do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// A call with one answer.
    Short,
    /// A call that lasts as long as its client likes; it keeps nobody else out.
    Stream,
}

impl Operation {
    fn of(path: &str) -> Option<Self> {
        const HEALTH: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List"];
        if path.starts_with("/taskyard.v1.AdminService/") || HEALTH.contains(&path) {
            Some(Self::Short)
        } else if path.starts_with("/grpc.reflection.") {
            Some(Self::Stream)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(connections: usize, per_address: usize) -> ConnectionSlots {
        ConnectionSlots::new(Limits { connections, per_address })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_of_ipv6_and_a_mapped_address_are_one_client() {
        let same = [
            ("2001:db8:1:2:3::4", "2001:db8:1:2:ffff::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
        ];
        for (one, other) in same {
            assert_eq!(Address::of(ip(one)), Address::of(ip(other)));
        }
        let different = [
            ("2001:db8:1:2::1", "2001:db8:1:3::1"),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
            ("192.0.2.1", "192.0.2.2"),
        ];
        for (one, other) in different {
            assert_ne!(Address::of(ip(one)), Address::of(ip(other)));
        }
    }

    #[test]
    fn places_are_counted_in_all_and_by_address_and_given_back() {
        let slots = slots(3, 2);
        let (a, b, c) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("192.0.2.3"));
        let first = slots.take(a).unwrap();
        let second = slots.take(a).unwrap();
        assert_eq!(slots.take(a).unwrap_err(), Crowded::Address(2));
        let other = slots.take(b).unwrap();
        assert_eq!(slots.take(c).unwrap_err(), Crowded::Server(3));
        drop(other);
        drop(first);
        let again = slots.take(a).unwrap();
        let third = slots.take(c).unwrap();
        drop((second, again, third));
        assert_eq!(slots.taken().ordinary, 0);
        assert!(slots.taken().by_address.is_empty());
    }

    #[test]
    fn operators_get_a_place_and_those_who_serve_nothing_leave_for_them() {
        let slots = slots(0, 0);
        let come = |address: &str| {
            let leave = CancellationToken::new();
            slots.take_for_operator(ip(address), &leave).map(|slot| (slot, leave))
        };
        // One address may not take the slots of others.
        let flood: Vec<_> = (0..100).map(|_| come("192.0.2.1").unwrap()).collect();
        let stay = flood.iter().filter(|(_, leave)| !leave.is_cancelled()).count();
        assert_eq!(stay, OPERATOR_CONNECTIONS_PER_ADDRESS);
        // Nor those of its own that serve a call.
        let calls: Vec<_> = flood.iter().filter_map(|(slot, _)| slot.serve_call()).collect();
        assert_eq!(calls.len(), stay, "who had to leave serves none");
        assert!(come("192.0.2.1").is_none());
        // All others together: the oldest leaves.
        let others: Vec<_> = (2..20).map(|n| come(&format!("192.0.2.{n}")).unwrap()).collect();
        assert_eq!(slots.taken().operators.len() as u64, OPERATOR_CONNECTIONS);
        assert!(others[0].1.is_cancelled() && !others[17].1.is_cancelled());
        drop(calls);
        drop(others);
        assert!(come("192.0.2.1").is_some(), "its calls have ended");
        drop(flood);
        assert!(slots.taken().operators.is_empty());
    }

    #[test]
    fn operators_are_served_what_is_theirs() {
        let served = [
            ("/taskyard.v1.AdminService/Drain", Some(Operation::Short)),
            ("/grpc.health.v1.Health/Check", Some(Operation::Short)),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Some(Operation::Stream)),
            ("/taskyard.v1.TaskService/Submit", None),
            ("/grpc.health.v1.Health/Watch", None),
            ("/", None),
        ];
        for (path, expected) in served {
            assert_eq!(Operation::of(path), expected, "{path}");
        }
    }
}
