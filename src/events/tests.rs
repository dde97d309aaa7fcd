use super::*;

mod batches;
mod chronicle;
mod tails;
mod whole;
