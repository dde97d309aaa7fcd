//! The formulas against values from elsewhere, against other ways to compute
//! them, and at their edges.

use proptest::prelude::*;

use super::*;

fn close(computed: f64, expected: f64, relative: f64) -> bool {
    (computed - expected).abs() <= expected.abs() * relative
}

#[test]
fn erlang_c_agrees_with_published_values() {
    // As many digits as their sources give.
    let published = [
        // Adan and Resing, "Queueing Systems", 2015, table of the M/M/c at an
        // occupation of 0.9.
        (1, 0.9, 0.90, 0.005),
        (2, 1.8, 0.85, 0.005),
        (5, 4.5, 0.76, 0.005),
        (10, 9.0, 0.67, 0.005),
        (20, 18.0, 0.55, 0.005),
        // Tanner, "The Erlang-C Formula": 360 calls of 4 minutes in half an hour.
        (55, 48.0, 0.239, 0.0005),
        // The usual textbook example of M/M/2 and M/M/3: 1/3 and 4/9.
        (2, 1.0, 0.3333, 0.00005),
        (3, 2.0, 0.4444, 0.00005),
        // Tables of C(m, u).
        (5, 4.0, 0.5541, 0.00005),
        (10, 8.0, 0.4092, 0.00005),
        (20, 16.0, 0.2561, 0.00005),
    ];
    for (workers, load, expected, rounding) in published {
        let computed = wait_probability(workers, &erlangs(load));
        assert!((computed - expected).abs() <= rounding, "C({workers}, {load}) = {computed}");
    }
}

#[test]
fn erlang_c_agrees_with_exact_arithmetic() {
    // The definition, summed in rational numbers (the fractions) or with 60
    // decimal digits.
    let exact = [
        (2, 1.0, 1.0 / 3.0),
        (3, 2.0, 4.0 / 9.0),
        (5, 4.0, 128.0 / 231.0),
        (10, 5.0, 390_625.0 / 10_819_031.0),
        (10, 8.0, 4_194_304.0 / 10_250_507.0),
        (14, 10.0, 976_562_500.0 / 5_608_175_823.0),
        (20, 16.0, 0.256_077_793_839_057_9),
        (50, 5.0, 2.186_303_375_865_309_8e-32),
        (100, 90.0, 0.216_940_480_906_366_4),
        (1_000, 900.0, 0.000_592_669_966_378_781_2),
        (1_000, 990.0, 0.659_080_421_880_854_5),
        (5_000, 4_900.0, 0.099_937_877_234_487_66),
        (10_000, 9_950.0, 0.504_750_474_681_020_2),
        (10_000, 9_999.0, 0.987_556_252_434_485_9),
    ];
    for (workers, load, expected) in exact {
        let computed = wait_probability(workers, &erlangs(load));
        assert!(close(computed, expected, 1e-11), "C({workers}, {load}) = {computed}");
    }
}

#[test]
fn erlang_b_agrees_with_the_traffic_tables() {
    // The loads at which so many lines lose 1 % of the calls, from the Erlang B
    // tables that telephone engineers use.
    let tables = [
        (1, 0.0101),
        (2, 0.1526),
        (5, 1.3608),
        (10, 4.4612),
        (20, 12.031),
        (50, 37.901),
        (100, 84.064),
        (200, 179.74),
    ];
    for (lines, load) in tables {
        let loss = blocked(lines, load);
        assert!(close(loss, 0.01, 0.0005), "B({lines}, {load}) = {loss}");
    }
}

#[test]
fn one_and_two_workers_have_closed_forms() {
    for percent in 1..100 {
        let busy = f64::from(percent) / 100.0;
        // M/M/1: C is the share of time that the worker is busy.
        let one = wait_probability(1, &erlangs(busy));
        assert!(close(one, busy, 1e-12), "{one} at {busy}");
        let wait = mean_wait(1, &erlangs(busy)).unwrap().as_secs_f64();
        assert!(close(wait, busy / (1.0 - busy), 1e-7), "{wait} at {busy}");
        // M/M/2: summing the geometric series gives 2 r² / (1 + r).
        let two = wait_probability(2, &erlangs(2.0 * busy));
        assert!(close(two, 2.0 * busy * busy / (1.0 + busy), 1e-12), "{two} at {busy}");
        let wait = mean_wait(2, &erlangs(2.0 * busy)).unwrap().as_secs_f64();
        assert!(close(wait, busy * busy / (1.0 - busy * busy), 1e-5), "{wait} at {busy}");
    }
}

/// Erlang C by its definition: the powers over factorials as logarithms, scaled
/// by the largest and summed.
fn direct(workers: u32, load: f64) -> f64 {
    let mut log = 0.0;
    let mut logs = vec![log];
    for waiting in 1..=workers {
        log += load.ln() - f64::from(waiting).ln();
        logs.push(log);
    }
    let delayed = log - (1.0 - load / f64::from(workers)).ln();
    *logs.last_mut().unwrap() = delayed;
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (delayed - largest).exp() / logs.iter().map(|log| (log - largest).exp()).sum::<f64>()
}

proptest! {
    #[test]
    fn erlang_c_agrees_with_the_direct_sum(workers in 1..=MAX_WORKERS, busy in 0.01..0.999_f64) {
        let load = f64::from(workers) * busy;
        let expected = direct(workers, load);
        let computed = wait_probability(workers, &erlangs(load));
        // The logarithms add up to 1e5 and more, and lose that much precision.
        let same = close(computed, expected, 1e-8) || expected < 1e-300;
        prop_assert!(same, "C({workers}, {load}): {computed} is not {expected}");
    }

    #[test]
    fn more_workers_never_wait_longer(
        workers in 1..MAX_WORKERS,
        more in 1..100_u32,
        rate in 0.0..1e4_f64,
        micros in 0..2_000_000_u64,
    ) {
        let load = Load { arrival_rate: rate, mean_service: Duration::from_micros(micros), variability: 1.0 };
        let (few, many) = (mean_wait(workers, &load), mean_wait(workers + more, &load));
        if let Some(few) = few {
            prop_assert!(many.is_some_and(|many| many <= few), "{few:?}, then {many:?}");
        }
        let few = wait_probability(workers, &load);
        let many = wait_probability(workers + more, &load);
        prop_assert!(many <= few && (0.0..=1.0).contains(&few), "{few}, then {many}");
    }

    #[test]
    fn workers_for_is_the_fewest(
        target in 0..10_000_000_u64,
        rate in 0.0..9_000.0_f64,
        micros in 0..1_100_000_u64,
    ) {
        let load = Load { arrival_rate: rate, mean_service: Duration::from_micros(micros), variability: 1.0 };
        let target = Duration::from_micros(target);
        let holds = |n: u32| mean_wait(n, &load).is_some_and(|wait| wait <= target);
        match workers_for(target, &load) {
            Some(fewest) => {
                prop_assert!((1..=MAX_WORKERS).contains(&fewest) && holds(fewest));
                prop_assert!(!holds(fewest - 1), "{fewest} are not the fewest");
            }
            None => prop_assert!(!holds(MAX_WORKERS)),
        }
    }

    #[test]
    fn no_input_is_without_an_answer(
        workers: u32,
        rate in proptest::num::f64::ANY,
        nanos: u64,
        target: u64,
    ) {
        let load = Load { arrival_rate: rate, mean_service: Duration::from_nanos(nanos), variability: 1.0 };
        let probability = wait_probability(workers, &load);
        prop_assert!((0.0..=1.0).contains(&probability), "{probability}");
        let held = workers_for(Duration::from_nanos(target), &load);
        prop_assert!(held.is_none_or(|workers| mean_wait(workers, &load).is_some()));
        prop_assert!(mean_wait(workers, &load).is_none() || probability < 1.0);
    }
}

#[test]
fn without_load_one_worker_is_enough_and_none_is_not() {
    let loads = [
        erlangs(0.0),
        erlangs(-0.0),
        erlangs(-5.0),
        Load { arrival_rate: 1e300, mean_service: Duration::ZERO, variability: 1.0 },
        Load { arrival_rate: f64::INFINITY, mean_service: Duration::ZERO, variability: 1.0 },
        Load { arrival_rate: 0.0, mean_service: Duration::MAX, variability: 1.0 },
    ];
    for load in loads {
        assert!(offered_load(&load).abs() < f64::MIN_POSITIVE, "{load:?}");
        assert!(wait_probability(1, &load) < f64::MIN_POSITIVE, "{load:?}");
        assert_eq!(mean_wait(1, &load), Some(Duration::ZERO), "{load:?}");
        assert_eq!(workers_for(Duration::ZERO, &load), Some(1), "{load:?}");
        assert!(wait_probability(0, &load) >= 1.0, "{load:?}");
        assert_eq!(mean_wait(0, &load), None, "{load:?}");
    }
}

#[test]
fn no_pool_keeps_up_with_what_is_no_number_or_too_much() {
    let hours =
        Load { arrival_rate: f64::MAX, mean_service: Duration::from_hours(1), variability: 1.0 };
    for load in [erlangs(f64::NAN), erlangs(f64::INFINITY), erlangs(10_000.0), hours] {
        assert!(wait_probability(MAX_WORKERS, &load) >= 1.0, "{load:?}");
        assert_eq!(mean_wait(MAX_WORKERS, &load), None, "{load:?}");
        assert_eq!(workers_for(Duration::MAX, &load), None, "{load:?}");
    }
    assert!(offered_load(&erlangs(f64::NAN)).is_nan());
}

#[test]
fn a_pool_as_large_as_the_load_does_not_keep_up_and_one_more_does() {
    for workers in [1, 2, 10, 100, 1_000, 9_999] {
        let load = erlangs(f64::from(workers));
        assert!(wait_probability(workers, &load) >= 1.0);
        assert_eq!(mean_wait(workers, &load), None);
        assert!(mean_wait(workers + 1, &load).is_some());
        assert_eq!(workers_for(Duration::MAX, &load), Some(workers + 1));
    }
}

#[test]
fn more_workers_than_a_pool_may_have_count_as_the_most() {
    let load = erlangs(9_990.0);
    assert_eq!(mean_wait(u32::MAX, &load), mean_wait(MAX_WORKERS, &load));
    assert_eq!(mean_wait(u32::MAX, &erlangs(10_001.0)), None);
}

#[test]
fn a_wait_is_a_duration_in_the_units_of_the_service_time() {
    // M/M/1, half busy: the wait is one service time.
    let load =
        Load { arrival_rate: 2.0, mean_service: Duration::from_millis(250), variability: 1.0 };
    assert_eq!(mean_wait(1, &load), Some(Duration::from_millis(250)));
    // A wait that no duration holds: a worker that is all but busy for ages.
    let ages = Load {
        arrival_rate: 0.999 / 1e19,
        mean_service: Duration::from_secs(10_u64.pow(19)),
        variability: 1.0,
    };
    assert_eq!(mean_wait(1, &ages), None);
    assert!(mean_wait(2, &ages).is_some());
}
