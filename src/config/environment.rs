//! Settings from the environment.
//!
//! Owns which variables are settings, and which others may begin like one. Must
//! not know what the settings mean.

use std::ffi::{OsStr, OsString};

use taskyard_text::closest;

use super::{
    load::Sources,
    problem::Location,
    settings::{PREFIX, Setting},
    table,
};

/// The variable that names the configuration file.
pub const CONFIG: &str = "TASKYARD_CONFIG";

/// Variables that begin like a setting and are none: the server that clients
/// talk to, and what a command is told about the task that it runs for.
const NOT_SETTINGS: [&str; 3] = ["TASKYARD_SERVER", "TASKYARD_TASK_ID", "TASKYARD_ATTEMPT"];

/// Adds what the variables set. An empty variable counts as one that is not set.
pub fn read(sources: &mut Sources, variables: impl IntoIterator<Item = (OsString, OsString)>) {
    let settings =
        table::settings().map(|setting| (setting.variable(), setting)).collect::<Vec<_>>();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && !value.is_empty() {
            read_one(sources, &settings, &name, &value);
        }
    }
}

fn read_one(
    sources: &mut Sources,
    settings: &[(String, &'static Setting)],
    name: &str,
    value: &OsStr,
) {
    let location = Location::Variable(name.into());
    if let Some((_, setting)) = settings.iter().find(|(variable, _)| variable == name) {
        sources.set_os(setting, location, value);
    } else if name == CONFIG {
        sources.file.get_or_insert((location, value.into()));
    } else if !NOT_SETTINGS.contains(&name) && !is_service_link(name) {
        let known = settings.iter().map(|(variable, _)| variable.as_str()).chain([CONFIG]);
        sources.refuse(
            location,
            match closest(name, known) {
                Some(meant) => format!("is not a setting; did you mean {meant}?"),
                None => "is not a setting; unset it, or see taskyard serve --help".into(),
            },
        );
    }
}

/// Whether Kubernetes may have set this variable by itself. In a namespace with
/// a service called `taskyard`, every pod is given `TASKYARD_SERVICE_HOST`,
/// `TASKYARD_PORT_50051_TCP_ADDR` and the like.
fn is_service_link(name: &str) -> bool {
    let ends = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
    let holds = ["_SERVICE_PORT_", "_PORT_"];
    ends.iter().any(|end| name.ends_with(end)) || holds.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_looks_like_a_service_link() {
        for setting in table::settings() {
            assert!(!is_service_link(&setting.variable()), "{}", setting.name);
        }
    }
}
