use super::*;

mod batches;
mod cursor_codec;
mod tails;
mod whole_batches;
