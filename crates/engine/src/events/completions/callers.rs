//! How many callers wait, so that the engine need not take a lock to find that nobody does.
//!
//! Whoever waits first arrives here and then looks at the task; the engine first commits an
//! end and then looks here. Each writes before it reads what the other writes, so at least one
//! of them sees the other, and no end is missed. That holds because a fence stands between the
//! two on either side, as stores and loads of different places may change their order (on x86,
//! too), and because both fences are sequentially consistent: one of them comes first, and what
//! was written before it is seen by what is read after the other.
//!
//! Written once for the atomics of `std` and for those of loom, which tries every order that
//! the memory model allows.

macro_rules! callers {
    ($atomics:path) => {
        use $atomics as atomics;

        /// A count of callers.
        #[derive(Debug)]
        pub struct Callers(atomics::AtomicUsize);

        impl Callers {
            /// Nobody.
            pub fn new() -> Self {
                Self(atomics::AtomicUsize::new(0))
            }

            /// One more; what it looks at afterwards is as new as what the engine has committed
            /// before it last found nobody.
            pub fn arrive(&self) {
                self.0.fetch_add(1, atomics::Ordering::Relaxed);
                atomics::fence(atomics::Ordering::SeqCst);
            }

            /// One less.
            pub fn leave(&self) {
                self.0.fetch_sub(1, atomics::Ordering::Relaxed);
            }

            /// How many there are; those who arrived before what the caller has just written
            /// could be seen are among them.
            pub fn count(&self) -> usize {
                atomics::fence(atomics::Ordering::SeqCst);
                self.0.load(atomics::Ordering::Relaxed)
            }
        }
    };
}

mod real {
    callers!(std::sync::atomic);
}

pub use real::Callers;

impl Default for Callers {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod modelled {
    use loom::sync::Arc;

    callers!(loom::sync::atomic);

    #[test]
    fn an_end_is_seen_or_told_in_every_order() {
        loom::model(|| {
            let callers = Arc::new(Callers::new());
            let committed = Arc::new(atomics::AtomicUsize::new(0));
            let engine = {
                let (callers, committed) = (Arc::clone(&callers), Arc::clone(&committed));
                loom::thread::spawn(move || {
                    // The journal promises no order of its own here.
                    committed.store(1, atomics::Ordering::Relaxed);
                    callers.count() > 0
                })
            };
            callers.arrive();
            let is_seen = committed.load(atomics::Ordering::Relaxed) == 1;
            let is_told = engine.join().expect("it does not panic");
            assert!(is_seen || is_told, "the end is missed");
            callers.leave();
            assert_eq!(callers.count(), 0);
        });
    }
}
