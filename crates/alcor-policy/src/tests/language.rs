use super::{holds, who};
use crate::{Credentials, Foreseen, ParseError, Policy, PolicyError, Value};

fn refused(file: &str) -> PolicyError {
    Policy::load(Some(file)).unwrap_err()
}

fn unreadable(rule: &str) -> ParseError {
    match refused(&format!("asked: '{}'", rule.replace('\'', "''"))) {
        PolicyError::Unreadable { error, .. } => error,
        other => panic!("{other}"),
    }
}

#[test]
fn the_language() {
    let mia = who("p1", &["member", "Reader"]);
    let of_p1 = [
        ("project_id", Value::text("p1")),
        ("name", Value::text("member")),
        ("n", Value::Int(5)),
    ];
    let cases = [
        ("", true),
        ("@", true),
        ("!", false),
        ("not !", true),
        ("not not @", true),
        ("role:member", true),
        ("role:MEMBER", true),
        ("role:reader", true),
        ("role:admin", false),
        ("role:%(name)s", true),
        ("role:%(absent)s", false),
        ("role:admin or role:member", true),
        ("role:admin and role:member", false),
        ("role:member or role:member and !", true),
        ("(role:member or role:member) and !", false),
        ("! and ! or @", true),
        ("@ or ! and !", true),
        ("NOT ! AND @", true),
        ("(((role:member)))", true),
        ("not (role:admin or !)", true),
        ("project_id:%(project_id)s", true),
        ("tenant_id:%(tenant_id)s", true),
        ("(project_id:%(project_id)s)", true),
        ("project_id:%(network:project_id)s", false),
        ("user_id:user", true),
        ("user_id:%(project_id)s", false),
        ("'p1':%(project_id)s", true),
        ("\"p1\":%(project_id)s", true),
        ("5:%(n)s", true),
        ("6:%(n)s", false),
        ("None:%(n)s", false),
        ("'x%':x%%", true),
        ("'p1-5':%(project_id)s-%(n)s", true),
        ("roles:member", true),
        ("is_admin:True", false),
        ("is_admin:False", true),
        ("is_admin_project:True", false),
        ("system_scope:all", false),
        ("domain_id:%(absent)s", false),
        ("field:networks:name=member", true),
        ("field:networks:name=~^mem", true),
        ("field:networks:name=~em", false),
        ("not field:networks:absent=x", true),
        ("rule:owner", true),
        ("rule:admin_or_owner", true),
        ("rule:admin_only", false),
    ];
    for (rule, expected) in cases {
        assert_eq!(holds(rule, &mia, &of_p1), expected, "{rule}");
    }
}

#[test]
fn what_is_not_there_equals_nothing() {
    let nobody = Credentials::default();
    assert!(!holds(
        "project_id:%(project_id)s",
        &nobody,
        &[("project_id", Value::Null)]
    ));
    assert!(!holds(
        "project_id:%(project_id)s",
        &who("p1", &[]),
        &[("project_id", Value::Null)]
    ));
    assert!(!holds(
        "user_id:%(user_id)s",
        &nobody,
        &[("user_id", Value::Null)]
    ));
    assert!(!holds(
        "field:networks:shared=True",
        &nobody,
        &[("shared", Value::Null)]
    ));
    assert!(!holds("user_id:", &nobody, &()));
}

#[test]
fn booleans_are_compared_as_booleans_and_networks_share_with_what_is_in_them() {
    let mia = who("p1", &["member"]);
    assert!(holds(
        "field:networks:shared=True",
        &mia,
        &[("shared", Value::Bool(true))]
    ));
    assert!(holds(
        "field:networks:shared=true",
        &mia,
        &[("shared", Value::Bool(true))]
    ));
    assert!(!holds(
        "field:networks:shared=True",
        &mia,
        &[("shared", Value::Bool(false))]
    ));
    assert!(holds(
        "field:networks:shared=True",
        &mia,
        &[("network:shared", Value::Bool(true))]
    ));
    assert!(!holds(
        "field:subnetpools:shared=True",
        &mia,
        &[("network:shared", Value::Bool(true))]
    ));
    let own_wins = [
        ("shared", Value::Bool(false)),
        ("network:shared", Value::Bool(true)),
    ];
    assert!(!holds("field:networks:shared=True", &mia, &own_wins));
    let external = [("router:external", Value::Bool(true))];
    assert!(holds("field:networks:router:external=True", &mia, &external));
}

#[test]
fn tokens_for_the_system_do_what_the_file_lets_them() {
    let system = Policy::load(None).unwrap().admit(Credentials {
        user_id: Some("root".to_owned()),
        system_scope: Some("all".to_owned()),
        roles: vec!["admin".to_owned(), "member".to_owned(), "reader".to_owned()],
        ..Credentials::default()
    });
    assert!(system.is_admin);
    let defaults = Policy::load(None).unwrap();
    let rule = defaults.rule("get_network").unwrap();
    assert!(!defaults.allows(rule, &system, &()));
    assert_eq!(defaults.foresee(rule, &system), Foreseen::Never);
    let file = "get_network: role:reader and system_scope:all\n";
    assert!(
        Policy::load(Some(file))
            .unwrap()
            .allows_named("get_network", &system, &())
    );
}

#[test]
fn lists_are_ors_of_ands() {
    let file = r#"
both: [["role:member", "project_id:%(project_id)s"]]
either: [["role:admin"], "role:member"]
all_refused: [["!"], ["role:member", "!"]]
nothing: []
empty_members: [[]]
"#;
    let policy = Policy::load(Some(file)).unwrap();
    let mia = who("p1", &["member"]);
    let target = [("project_id", Value::text("p1"))];
    for (name, expected) in [
        ("both", true),
        ("either", true),
        ("all_refused", false),
        ("nothing", true),
        ("empty_members", false),
    ] {
        assert_eq!(policy.allows_named(name, &mia, &target), expected, "{name}");
    }
    assert!(!policy.allows_named("both", &mia, &()));
}

#[test]
fn a_file_overrides_and_adds() {
    let file = r#"
# A comment.
"create_network": "role:net_admin"
"create_port:name": "rule:admin_only"
"create_network:provider:network_type": "rule:house_rule"
"house_rule": "@"
"#;
    let policy = Policy::load(Some(file)).unwrap();
    let mia = who("p1", &["member"]);
    let target = [("project_id", Value::text("p1"))];
    assert!(!policy.allows_named("create_network", &mia, &target));
    assert!(policy.allows_named("create_network", &who("p2", &["net_admin"]), &target));
    assert!(policy.allows_named("create_network:provider:network_type", &mia, &target));
    assert!(policy.allows_named("create_router", &mia, &target));
    let attributes = &policy.action("create_port").unwrap().attributes;
    assert!(attributes.iter().any(|(name, _)| &**name == "name"));
    assert!(
        attributes
            .iter()
            .any(|(name, _)| &**name == "fixed_ips:ip_address")
    );
    assert!(Policy::load(Some("# nothing yet\n\n")).is_ok());
}

#[test]
fn an_unknown_rule_allows_nothing() {
    let admin = who("p1", &["admin", "member", "reader"]);
    assert!(
        !Policy::load(None)
            .unwrap()
            .allows_named("create_unicorn", &admin, &())
    );
    assert!(Policy::load(None).unwrap().action("create_unicorn").is_none());
}

#[test]
fn what_is_in_doubt_is_refused_as_a_whole() {
    let no_rule = refused("a: rule:b\n");
    assert_eq!(
        no_rule.to_string(),
        "rule 'a' refers to rule 'b', which does not exist"
    );
    assert!(matches!(refused("a: rule:a\n"), PolicyError::Circle { .. }));
    assert!(matches!(
        refused("a: rule:b\nb: not rule:a\n"),
        PolicyError::Circle { .. }
    ));
    let chain: String = (0..40)
        .map(|n| format!("r{n}: rule:r{}\n", n + 1))
        .collect::<String>()
        + "r40: '@'\n";
    assert!(matches!(refused(&chain), PolicyError::Circle { .. }));
    assert!(matches!(refused("just text"), PolicyError::Yaml(_)));
    assert!(matches!(refused("a: 5\n"), PolicyError::Yaml(_)));
    assert!(matches!(refused("a:\n"), PolicyError::Yaml(_)));
    assert!(matches!(refused("a: '@'\na: '!'\n"), PolicyError::Yaml(_)));
    assert!(matches!(refused(&"#".repeat(2 << 20)), PolicyError::TooLarge));
    assert_eq!(unreadable("role:a or"), ParseError::Ended);
    assert_eq!(unreadable("(role:a"), ParseError::Ended);
    assert_eq!(unreadable("role:a)"), ParseError::Unexpected(")".to_owned()));
    assert_eq!(
        unreadable("role:a role:b"),
        ParseError::Unexpected("role:b".to_owned())
    );
    assert_eq!(unreadable("and role:a"), ParseError::Unexpected("and".to_owned()));
    assert!(matches!(unreadable("nonsense"), ParseError::NoCondition(_)));
    assert!(matches!(unreadable("colour:blue"), ParseError::UnknownKind(_)));
    assert!(matches!(
        unreadable("http://policy.example/"),
        ParseError::Remote(_)
    ));
    assert!(matches!(unreadable("project_id:p1"), ParseError::BadOwner(_)));
    assert!(matches!(
        unreadable("field:networks:shared"),
        ParseError::BadField(_)
    ));
    assert!(matches!(
        unreadable("field:port:name=~("),
        ParseError::BadField(_)
    ));
    assert!(matches!(unreadable("role:%(name)d"), ParseError::BadPattern(_)));
    assert!(matches!(unreadable("role:100%"), ParseError::BadPattern(_)));
    assert_eq!(
        unreadable(&format!("{}@{}", "(".repeat(40), ")".repeat(40))),
        ParseError::TooDeep
    );
    assert_eq!(unreadable(&"not ".repeat(40)), ParseError::TooDeep);
    assert_eq!(unreadable(&"@ or ".repeat(10_000)), ParseError::TooLong);
}
