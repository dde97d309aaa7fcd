//! Updates of queues, and their pages.

use std::time::Duration;

use super::*;
use crate::store::Flow;

fn fields<T: std::fmt::Debug>(checked: Result<T, Vec<Violation>>) -> Vec<String> {
    let wrong = checked.expect_err("something is wrong");
    wrong.into_iter().map(|violation| violation.field).collect()
}

fn span(millis: u64) -> Option<prost_types::Duration> {
    Duration::from_millis(millis).try_into().ok()
}

fn request(settings: v1::QueueSettings, mask: &[&str]) -> v1::UpdateQueueRequest {
    let paths = mask.iter().map(|path| (*path).to_owned()).collect();
    v1::UpdateQueueRequest {
        queue: "q".into(),
        settings: Some(settings),
        update_mask: Some(prost_types::FieldMask { paths }),
    }
}

fn everything() -> v1::QueueSettings {
    v1::QueueSettings {
        max_tasks: Some(1),
        max_bytes: Some(1 << 10),
        max_running: Some(2),
        rate_limit: Some(v1::RateLimit { starts_per_second: 0.5, burst: 3 }),
        weight: Some(4),
        max_attempts: Some(5),
        initial_backoff: span(6),
        max_backoff: span(7),
        attempt_timeout: span(8),
    }
}

#[test]
fn without_a_mask_what_is_set_changes() {
    let all = update(request(everything(), &[])).expect("it is valid");
    assert_eq!(all.fields, Field::ALL);
    let values = Overrides {
        max_tasks: Some(1),
        max_bytes: Some(1 << 10),
        max_running: Some(Some(2)),
        rate: Some(Some(queue::Rate { per_second: 0.5, burst: 3 })),
        weight: Some(4),
        max_attempts: Some(5),
        initial_backoff: Some(Duration::from_millis(6)),
        max_backoff: Some(Duration::from_millis(7)),
        attempt_timeout: Some(Duration::from_millis(8)),
    };
    assert_eq!(all.values, values);
    let one = v1::QueueSettings { weight: Some(9), ..Default::default() };
    let one = update(request(one, &[])).expect("it is valid");
    assert_eq!(one.fields, [Field::Weight]);
    assert_eq!(one.values, Overrides { weight: Some(9), ..Default::default() });
}

#[test]
fn a_mask_chooses_and_resets() {
    let chosen = v1::QueueSettings { max_tasks: None, ..everything() };
    let chosen = update(request(chosen, &["weight", "max_tasks", "weight"])).expect("valid");
    assert_eq!(chosen.fields, [Field::MaxTasks, Field::Weight]);
    assert_eq!(chosen.values, Overrides { weight: Some(4), ..Default::default() });
    // What is not chosen is not looked at.
    let wrong = v1::QueueSettings { weight: Some(0), ..Default::default() };
    let reset = update(request(wrong, &["max_attempts"])).expect("valid");
    assert_eq!((reset.fields, reset.values), (vec![Field::MaxAttempts], Overrides::default()));
}

#[test]
fn zero_lifts_a_limit() {
    let lifted = v1::QueueSettings {
        max_running: Some(0),
        rate_limit: Some(v1::RateLimit { starts_per_second: 0.0, burst: 0 }),
        ..Default::default()
    };
    let lifted = update(request(lifted, &[])).expect("valid").values;
    assert_eq!((lifted.max_running, lifted.rate), (Some(None), Some(None)));
    let once = v1::RateLimit { starts_per_second: 2.0, burst: 0 };
    let once = v1::QueueSettings { rate_limit: Some(once), ..Default::default() };
    let rate = update(request(once, &[])).expect("valid").values.rate;
    assert_eq!(rate, Some(Some(queue::Rate { per_second: 2.0, burst: 1 })));
}

#[test]
fn a_burst_without_a_rate_is_wrong() {
    for (starts_per_second, burst) in [(0.0, 7), (-0.0, 1), (0.0, 1_000_001), (0.0, u32::MAX)] {
        let rate = v1::RateLimit { starts_per_second, burst };
        let wrong = v1::QueueSettings { rate_limit: Some(rate), ..Default::default() };
        assert_eq!(fields(update(request(wrong, &[]))), ["settings.rate_limit.burst"]);
    }
}

#[test]
fn everything_wrong_with_an_update_is_named() {
    let wrong = v1::QueueSettings {
        max_tasks: Some(0),
        max_bytes: Some(1),
        max_running: Some(10_001),
        rate_limit: Some(v1::RateLimit { starts_per_second: f64::NAN, burst: 1_000_001 }),
        weight: Some(0),
        max_attempts: Some(101),
        initial_backoff: span(0),
        max_backoff: span(24 * 60 * 60 * 1_000 + 1),
        attempt_timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
    };
    let wrong = v1::UpdateQueueRequest { queue: "No".into(), ..request(wrong, &[]) };
    assert_eq!(
        fields(update(wrong)),
        [
            "queue",
            "settings.max_tasks",
            "settings.max_bytes",
            "settings.max_running",
            "settings.rate_limit.starts_per_second",
            "settings.rate_limit.burst",
            "settings.weight",
            "settings.max_attempts",
            "settings.initial_backoff",
            "settings.max_backoff",
            "settings.attempt_timeout",
        ]
    );
    for endless in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -1.0, 0.000_01] {
        let rate = v1::RateLimit { starts_per_second: endless, burst: 1 };
        let wrong = v1::QueueSettings { rate_limit: Some(rate), ..Default::default() };
        assert_eq!(fields(update(request(wrong, &[]))), ["settings.rate_limit.starts_per_second"]);
    }
}

#[test]
fn an_update_must_change_something_that_there_is() {
    let nothing = v1::UpdateQueueRequest { queue: "q".into(), ..Default::default() };
    assert_eq!(fields(update(nothing)), ["settings"]);
    assert_eq!(fields(update(v1::UpdateQueueRequest::default())), ["queue"]);
    let unknown = request(everything(), &["weight", "settings.weight", "*"]);
    assert_eq!(fields(update(unknown)), ["update_mask.paths[1]", "update_mask.paths[2]"]);
    let many = request(everything(), &["weight"; 1_000]);
    assert_eq!(fields(update(many)), ["update_mask"]);
}

#[test]
fn the_backoffs_must_fit_together_in_the_end() {
    let configured = Settings {
        initial_backoff: Duration::from_secs(10),
        max_backoff: Duration::from_mins(1),
        ..Default::default()
    };
    let check = |settings, mask: &[&str], before: Overrides| {
        let update = update(request(settings, mask)).expect("it is valid");
        before.changed(&update.fields, &update.values, configured).is_ok()
    };
    let none = Overrides::default();
    let initial =
        |millis| v1::QueueSettings { initial_backoff: span(millis), ..Default::default() };
    let max = |millis| v1::QueueSettings { max_backoff: span(millis), ..Default::default() };
    assert!(check(initial(60_000), &[], none));
    assert!(!check(initial(60_001), &[], none));
    assert!(check(max(10_000), &[], none));
    assert!(!check(max(9_999), &[], none));
    // What was changed before counts, and what is reset does not.
    let short = Overrides { max_backoff: Some(Duration::from_secs(20)), ..none };
    assert!(!check(initial(30_000), &[], short));
    assert!(check(initial(30_000), &["initial_backoff", "max_backoff"], short));
    // A new configuration may have left it so; it keeps nobody from other changes.
    let broken = Overrides { max_backoff: Some(Duration::from_secs(1)), ..none };
    assert!(check(v1::QueueSettings { weight: Some(2), ..Default::default() }, &[], broken));
}

fn status(name: &str) -> QueueStatus {
    QueueStatus {
        name: Arc::from(name),
        settings: Settings::default(),
        overrides: Overrides { weight: Some(1), rate: Some(None), ..Default::default() },
        paused: false,
        block: None,
        counts: Counts::default(),
        waiting_bytes: 0,
        waiting_callers: 0,
        oldest_due: None,
        flow: Flow::default(),
    }
}

#[test]
fn pages_hold_every_queue_once() {
    let names = ["a", "a-b", "b", "c", "d"];
    for page_size in 1..=6 {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListQueuesRequest { page_size, page_token, ..Default::default() };
            let listing = queue_listing(&request).expect("it is valid");
            let page = queue_page(
                names.iter().map(|name| status(name)).collect(),
                &listing,
                &QueueConfig::default(),
            );
            assert!(page.queues.len() <= usize::try_from(page_size).unwrap());
            assert!(!page.queues.is_empty(), "a last page that is empty");
            seen.extend(page.queues.into_iter().map(|queue| queue.queue));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, names);
    }
}

#[test]
fn a_listing_that_is_wrong_is_told() {
    let one = v1::ListQueuesRequest {
        queue: "No".into(),
        page_size: -1,
        page_token: tokens::queue_token("a"),
    };
    assert_eq!(fields(queue_listing(&one)), ["page_size", "queue", "page_token"]);
    assert_eq!(fields(queue_name("")), ["queue"]);
    assert_eq!(fields(queue_name("é")), ["queue"]);
}

#[test]
fn a_queue_is_told_with_all_of_its_settings() {
    let told = queue(&status("q"), &QueueConfig::default());
    assert_eq!(told.overridden, ["rate_limit", "weight"]);
    assert_eq!(told.settings, empty_queue("q", &QueueConfig::default()).settings);
    let set = set_fields(&told.settings.expect("settings"));
    assert_eq!(set, Field::ALL);
}

#[test]
fn a_setting_is_configured_only_where_the_configuration_says_another_than_the_default() {
    let untouched = queue(&status("q"), &QueueConfig::default());
    assert!(untouched.configured.is_empty(), "{:?}", untouched.configured);
    // Declared as the default is: it is said all the same.
    let own = Overrides { weight: Some(1), ..Default::default() };
    let queue_config = QueueConfig {
        defaults: Settings { max_attempts: 3, ..Settings::default() },
        declared: [(Arc::from("q"), own)].into(),
        fixed: false,
    };
    assert_eq!(queue(&status("q"), &queue_config).configured, ["weight", "max_attempts"]);
    assert_eq!(empty_queue("r", &queue_config).configured, ["max_attempts"]);
}
