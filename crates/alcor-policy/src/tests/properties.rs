use proptest::prelude::*;

use crate::{Credentials, Foreseen, Policy, Value};

/// A rule as text and what it has to give for the caller and target of the tests below.
fn rules() -> impl Strategy<Value = (String, bool)> {
    let leaf = prop_oneof![
        Just(("@".to_owned(), true)),
        Just(("!".to_owned(), false)),
        Just(("role:member".to_owned(), true)),
        Just(("role:admin".to_owned(), false)),
        Just(("project_id:%(project_id)s".to_owned(), true)),
        Just(("project_id:%(network:project_id)s".to_owned(), false)),
        Just(("field:networks:shared=True".to_owned(), true)),
        Just(("'x':%(absent)s".to_owned(), false)),
        Just(("rule:owner".to_owned(), true)),
        Just(("rule:admin_only".to_owned(), false)),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|(text, value)| (format!("not ({text})"), !value)),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| {
                let texts: Vec<String> = parts.iter().map(|(text, _)| format!("({text})")).collect();
                (texts.join(" and "), parts.iter().all(|(_, value)| *value))
            }),
            proptest::collection::vec(inner, 1..4).prop_map(|parts| {
                let texts: Vec<String> = parts.iter().map(|(text, _)| format!("({text})")).collect();
                (texts.join(" or "), parts.iter().any(|(_, value)| *value))
            }),
        ]
    })
}

fn member() -> Credentials {
    Credentials {
        project_id: Some("p1".to_owned()),
        roles: vec!["member".to_owned()],
        ..Credentials::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Rules mean what their operators say, and what is foreseen comes true.
    #[test]
    fn rules_mean_what_they_say((text, expected) in rules()) {
        let policy = Policy::load(Some(&format!("asked: \"{text}\""))).unwrap();
        let rule = policy.rule("asked").unwrap();
        let target = [("project_id", Value::text("p1")), ("shared", Value::Bool(true))];
        prop_assert_eq!(policy.allows(rule, &member(), &target), expected);
        match policy.foresee(rule, &member()) {
            Foreseen::Always => prop_assert!(expected),
            Foreseen::Never => prop_assert!(!expected),
            Foreseen::Depends => {}
        }
    }

    /// Whatever a file has in it, it is read or refused.
    #[test]
    fn no_file_panics(text in "[a-z'\":@!()%~=#\\[\\]{}&*\n -]{0,200}") {
        let _ = Policy::load(Some(&text));
    }

    /// Whatever a rule has in it, it is read or refused.
    #[test]
    fn no_rule_panics(words in proptest::collection::vec("(and|or|not|[(]{0,3}|[)]{0,3}|@|!|role:[a-z%()]{0,5}|[a-z']{0,3}:%\\([a-z:]{0,3}\\)s[)]{0,2})", 0..12)) {
        let _ = crate::parse::text(&words.join(" "));
    }
}
