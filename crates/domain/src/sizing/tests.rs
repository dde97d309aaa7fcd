use super::*;

mod formulas;
mod simulation;

/// A load of so many erlangs of tasks that take a second.
fn erlangs(erlangs: f64) -> Load {
    Load { arrival_rate: erlangs, mean_service: Duration::from_secs(1), variability: 1.0 }
}
