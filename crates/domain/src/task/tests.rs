use proptest::prelude::*;

use super::*;

mod machine;
mod values;
