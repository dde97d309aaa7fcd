//! The settings of a queue by name.
//!
//! Owns the way from a setting's name, as a field mask has it, to its field of
//! [`QueueSettings`]. The server and the client both go by names, and so know no setting
//! of their own. Must not know which values a setting takes.

use prost_types::Duration;

use crate::v1::{QueueSettings, RateLimit};

/// The value of any setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count, a size, or a limit.
    Count(u64),
    /// A span of time.
    Duration(Duration),
    /// A rate.
    Rate(RateLimit),
}

impl QueueSettings {
    fn field(&mut self, name: &str) -> Option<&mut dyn Field> {
        Some(match name {
            "max_tasks" => &mut self.max_tasks,
            "max_bytes" => &mut self.max_bytes,
            "max_running" => &mut self.max_running,
            "rate_limit" => &mut self.rate_limit,
            "weight" => &mut self.weight,
            "max_attempts" => &mut self.max_attempts,
            "initial_backoff" => &mut self.initial_backoff,
            "max_backoff" => &mut self.max_backoff,
            "attempt_timeout" => &mut self.attempt_timeout,
            _ => return None,
        })
    }

    /// The value of the setting of this name, if it is set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        let mut copy = *self;
        copy.field(name)?.get()
    }

    /// Sets the setting of this name, and tells whether there is one that holds such a value:
    /// if not, nothing is changed. Where there is no room for a count, the largest one for which
    /// there is takes its place.
    #[must_use]
    pub fn set(&mut self, name: &str, value: Value) -> bool {
        self.field(name).is_some_and(|field| field.set(value))
    }
}

/// A field that holds a setting.
trait Field {
    fn get(&self) -> Option<Value>;
    /// Whether it can hold it.
    fn set(&mut self, value: Value) -> bool;
}

impl Field for Option<u64> {
    fn get(&self) -> Option<Value> {
        self.map(Value::Count)
    }

    fn set(&mut self, value: Value) -> bool {
        let Value::Count(count) = value else { return false };
        *self = Some(count);
        true
    }
}

impl Field for Option<u32> {
    fn get(&self) -> Option<Value> {
        self.map(|count| Value::Count(count.into()))
    }

    fn set(&mut self, value: Value) -> bool {
        let narrow = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let Value::Count(count) = value else { return false };
        *self = Some(narrow(count));
        true
    }
}

impl Field for Option<Duration> {
    fn get(&self) -> Option<Value> {
        self.map(Value::Duration)
    }

    fn set(&mut self, value: Value) -> bool {
        let Value::Duration(span) = value else { return false };
        *self = Some(span);
        true
    }
}

impl Field for Option<RateLimit> {
    fn get(&self) -> Option<Value> {
        self.map(Value::Rate)
    }

    fn set(&mut self, value: Value) -> bool {
        let Value::Rate(rate) = value else { return false };
        *self = Some(rate);
        true
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::FILE_DESCRIPTOR_SET;

    fn names() -> Vec<String> {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("it is one");
        let mut messages = files.file.into_iter().flat_map(|file| file.message_type);
        let settings = messages.find(|message| message.name() == "QueueSettings");
        let fields = settings.expect("there is such a message").field;
        fields.into_iter().map(|field| field.name().to_owned()).collect()
    }

    #[test]
    fn every_setting_is_known_by_its_name() {
        let (rate, span) = (RateLimit { starts_per_second: 0.5, burst: 3 }, Duration::default());
        let values = [Value::Count(7), Value::Duration(span), Value::Rate(rate)];
        for name in names() {
            let mut settings = QueueSettings::default();
            let holds =
                |value: Value| settings.set(&name, value) && settings.get(&name) == Some(value);
            assert!(values.into_iter().any(holds), "{name} holds none of them");
            for other in names().iter().filter(|other| **other != name) {
                assert_eq!(settings.get(other), None, "{name} and {other} are one field");
            }
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_not_taken_as_it_is() {
        let mut settings = QueueSettings::default();
        assert!(settings.set("weight", Value::Count(1 << 40)));
        assert_eq!(settings.weight, Some(u32::MAX));
        let before = settings;
        assert!(!settings.set("weight", Value::Rate(RateLimit::default())), "it is a count");
        assert!(!settings.set("colour", Value::Count(1)), "there is none");
        assert_eq!(settings, before);
    }
}
