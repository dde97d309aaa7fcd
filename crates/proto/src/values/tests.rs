use super::*;

fn object(text: &str) -> Map<String, Json> {
    serde_json::from_str(text).expect("an object")
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

/// `depth` objects in one another.
fn objects(depth: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

/// An object with lists in one another, `depth` in all.
fn lists(depth: usize) -> String {
    format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1))
}

#[test]
fn json_survives_the_way_there_and_back() {
    let text = r#"{"a":1,"b":[true,null,"x",{"c":-0.5}],"big":9007199254740991,"f":1e+300}"#;
    let there = to_struct(object(text)).expect("all of it can be carried");
    assert_eq!(from_struct(there.clone()), Ok(object(text)));
    assert_eq!(stored_object(object(text)), there);
    assert_eq!(shown_object(there), Json::Object(object(text)));
}

#[test]
fn zero_keeps_its_sign() {
    let text = r#"{"a":-0.0,"b":0,"c":[-0.0]}"#;
    let there = to_struct(object(text)).expect("all of it can be carried");
    assert_eq!(Json::from(from_struct(there.clone()).expect("finite")).to_string(), text);
    assert_eq!(shown_object(there).to_string(), text);
    assert_eq!(shown(stored("-0.0")).to_string(), "-0.0");
}

#[test]
fn numbers_without_a_json_form_are_named() {
    let nan = value(Kind::NumberValue(f64::NAN));
    let list = value(Kind::ListValue(ListValue { values: vec![nan] }));
    let fields = Struct { fields: [("deep".to_owned(), list)].into() };
    let wrong = from_struct(fields).expect_err("NaN");
    assert_eq!((&*wrong.path, wrong.why), (".deep[0]", Why::NotFinite));
}

#[test]
fn a_number_that_would_change_is_refused_by_name() {
    for number in ["9007199254740992", "-9007199254740993", "18446744073709551615"] {
        let text = format!(r#"{{"a":[{{"id":{number}}}]}}"#);
        let wrong = to_struct(object(&text)).expect_err(number);
        assert_eq!(wrong.path, ".a[0].id");
        assert_eq!(wrong.why, Why::NotExact(number.into()));
        assert_eq!(scan(&text, MAX_DEPTH), Err(wrong));
    }
}

#[test]
fn a_number_in_text_is_exact_or_a_double_by_intent() {
    let exact = ["0", "-0", "9007199254740991", "1e300", "0.1", "9007199254740994.0", "1.5e20"];
    for number in exact {
        assert_eq!(scan(number, 1), Ok(()), "{number}");
    }
    let longer_than_a_u128 = "1".repeat(60);
    for number in [
        "9007199254740993.0",
        "100000000000000000000000",
        "-18446744073709551616",
        &longer_than_a_u128,
    ] {
        let text = format!(r#"["1","\"2",{{"x":[{number}]}}]"#);
        let wrong = scan(&text, 9).expect_err(number);
        assert_eq!(wrong.path, "[2].x[0]", "{number}");
    }
}

#[test]
fn the_depth_is_counted_alike_in_both_forms() {
    for deep in [objects, lists] {
        let (most, more) = (deep(MAX_DEPTH), deep(MAX_DEPTH + 1));
        assert_eq!(scan(&most, MAX_DEPTH), Ok(()));
        let there = to_struct(object(&most)).expect("no number changes");
        assert_eq!(from_struct(there), Ok(object(&most)));
        let wrong = scan(&more, MAX_DEPTH).expect_err("too deep");
        assert_eq!(wrong.why, Why::TooDeep(MAX_DEPTH));
        let there = to_struct(object(&more)).expect("no number changes");
        assert_eq!(from_struct(there), Err(wrong));
    }
    // Braces within strings do not nest.
    assert_eq!(scan(r#"{"a\"{[":"{[{[\\"}"#, 1), Ok(()));
}

#[test]
fn what_was_stored_too_deep_is_shown_but_for_what_is_too_deep() {
    for deep in [objects, lists] {
        let most = deep(MAX_DEPTH);
        assert_eq!(shown(stored(&most)).to_string(), most);
        assert_eq!(Json::Object(object(&most)), shown_object(stored_object(object(&most))));
        for depth in [MAX_DEPTH + 1, 60, 120] {
            let shown = shown(stored(&deep(depth))).to_string();
            assert_eq!(scan(&shown, MAX_DEPTH), Ok(()), "{shown}");
            assert!(shown.contains(LEFT_OUT), "{shown}");
            let args = shown_object(stored_object(object(&deep(depth)))).to_string();
            assert_eq!(args, shown);
        }
    }
    // Deeper than the reader of JSON goes.
    assert_eq!(shown(stored(&objects(500))), Json::from(LEFT_OUT));
}

#[test]
fn whole_numbers_that_may_have_been_others_are_known() {
    let number = |text: &str| serde_json::from_str::<Number>(text).expect("a number");
    for changed in ["3.88910826520445e18", "9007199254740992.0", "-1e300"] {
        assert!(may_have_changed(&number(changed)), "{changed}");
    }
    for same in ["9007199254740991", "0.5", "-0.0", "1e15", "4503599627370497.5"] {
        assert!(!may_have_changed(&number(same)), "{same}");
    }
}

#[test]
fn what_is_no_json_is_looked_through_without_a_panic() {
    for text in ["", "\"", "\"\\", "}]", ",", "{\"a", "-", "1-2", "é{\"é", "[{,]]"] {
        drop(scan(text, 3));
    }
}
