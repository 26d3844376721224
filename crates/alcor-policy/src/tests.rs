//! Neutron's semantics as tables of cases, the language's corners, and properties.

mod defaults;
mod language;
mod properties;

use crate::{Credentials, Policy, Target};

/// A member of `project` with `roles`, as Keystone expands them.
fn who(project: &str, roles: &[&str]) -> Credentials {
    let credentials = Credentials {
        user_id: Some("user".to_owned()),
        project_id: Some(project.to_owned()),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Credentials::default()
    };
    Policy::load(None).unwrap().admit(credentials)
}

fn holds(rule: &str, credentials: &Credentials, target: &dyn Target) -> bool {
    let file = format!("asked: \"{}\"", rule.replace('\\', "\\\\").replace('"', "\\\""));
    let policy = Policy::load(Some(&file)).unwrap();
    policy.allows_named("asked", credentials, target)
}
