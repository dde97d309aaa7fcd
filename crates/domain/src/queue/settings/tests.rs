//! What holds of every entry of the table.

use super::*;

/// A value of `field` that is not its default.
fn another(field: Field) -> Value {
    let kind = field.kind();
    let default = Settings::default().get(field);
    let candidates = match kind {
        Kind::Count(bounds) | Kind::Size(bounds) => {
            [Value::Count(*bounds.start()), Value::Count(*bounds.end())]
        }
        Kind::Limit { bounds, .. } => [Value::Count(*bounds.end()), Value::Count(0)],
        Kind::Duration(bounds) => {
            [Value::Duration(*bounds.start()), Value::Duration(*bounds.end())]
        }
        Kind::Rate => [Value::Rate(Some(Rate { per_second: 0.5, burst: 3 })), Value::Rate(None)],
    };
    candidates.into_iter().find(|value| *value != default).expect("two differ")
}

#[test]
fn every_default_is_within_its_bounds() {
    for field in Field::ALL {
        let is_within = match (field.kind(), Settings::default().get(field)) {
            (Kind::Count(bounds) | Kind::Size(bounds), Value::Count(count)) => {
                bounds.contains(&count)
            }
            (Kind::Limit { bounds, .. }, Value::Count(most)) => most == 0 || bounds.contains(&most),
            (Kind::Duration(bounds), Value::Duration(span)) => bounds.contains(&span),
            (Kind::Rate, Value::Rate(rate)) => rate.is_none(),
            (kind, value) => panic!("{field:?} is {value:?}, which is not of {kind:?}"),
        };
        assert!(is_within, "{field:?}");
    }
}

#[test]
fn names_and_numbers_are_given_once() {
    let mut numbers: Vec<_> = Field::ALL
        .into_iter()
        .flat_map(|field| {
            let own = field.record_number();
            own..=own + u32::from(field.kind() == Kind::Rate)
        })
        .collect();
    numbers.sort_unstable();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    for field in Field::ALL {
        assert_eq!(Field::of_name(field.name()), Some(field));
    }
}

#[test]
fn each_setting_is_set_and_taken_on_its_own() {
    let (mut all, mut taken) = (Overrides::default(), Overrides::default());
    for field in Field::ALL {
        all.set(field, Some(another(field)));
        assert_eq!(all.get(field), Some(another(field)), "{field:?}");
        assert!(!taken.has(field), "{field:?} came with another");
        taken.take(field, &all);
        assert_eq!(taken, all);
    }
    let (defaults, settings) = (Settings::default(), all.over(Settings::default()));
    assert!(Field::ALL.into_iter().all(|field| settings.differs(&defaults, field)), "{settings:?}");
    assert_eq!(all.names().collect::<Vec<_>>(), Field::ALL.map(Field::name));
    for field in Field::ALL {
        all.take(field, &Overrides::default());
    }
    assert!(all.is_empty());
}

#[test]
fn what_is_of_another_kind_or_too_large_is_not_taken_as_it_is() {
    let mut overrides = Overrides { weight: Some(3), ..Overrides::default() };
    overrides.set(Field::Weight, Some(Value::Count(1 << 40)));
    assert_eq!(overrides.weight, Some(u32::MAX));
    overrides.set(Field::Weight, Some(Value::Duration(Duration::from_secs(1))));
    assert_eq!(overrides, Overrides::default());
}
