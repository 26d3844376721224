//! Keystone's description of a token, and what it proves.

use alcor_policy::Credentials;
use jiff::Timestamp;
use serde::Deserialize;

use crate::session::Wanted;

/// What Keystone says a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who, where, and with which roles.
    pub credentials: Credentials,
    /// When that ends.
    pub expires_at: Timestamp,
}

#[derive(Deserialize)]
pub(crate) struct Envelope {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    expires_at: Timestamp,
    user: User,
    #[serde(default)]
    project: Option<Scope>,
    #[serde(default)]
    domain: Option<Reference>,
    #[serde(default)]
    system: Option<System>,
    #[serde(default)]
    roles: Vec<Role>,
    #[serde(default)]
    is_admin_project: Option<bool>,
    #[serde(default)]
    catalog: Vec<Service>,
}

/// Where services are.
#[derive(Debug, Default)]
pub struct Catalogue(Vec<Service>);

#[derive(Debug, Deserialize)]
struct Service {
    #[serde(rename = "type")]
    service_type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    interface: String,
    #[serde(default)]
    region_id: Option<String>,
    url: String,
}

impl Catalogue {
    /// The first endpoint that is as wanted.
    pub fn endpoint(&self, wanted: &Wanted) -> Option<&str> {
        let fits = |endpoint: &&Endpoint| {
            endpoint.interface == wanted.interface
                && (wanted.region.is_none() || endpoint.region_id == wanted.region)
        };
        let services = self.0.iter();
        services
            .filter(|service| service.service_type == wanted.service_type)
            .flat_map(|service| &service.endpoints)
            .find(fits)
            .map(|endpoint| endpoint.url.as_str())
    }
}

#[derive(Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    domain: Option<Reference>,
}

#[derive(Deserialize)]
struct Scope {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    domain: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(default)]
    id: Option<String>,
}

#[derive(Deserialize)]
struct System {
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
struct Role {
    name: String,
}

impl Envelope {
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.token.expires_at
    }

    pub(crate) fn catalogue(self) -> Catalogue {
        Catalogue(self.token.catalog)
    }

    pub(crate) fn verified(self) -> Verified {
        let token = self.token;
        let (project_id, project_name, project_domain) = match token.project {
            Some(project) => (Some(project.id), project.name, project.domain),
            None => (None, None, None),
        };
        let credentials = Credentials {
            user_id: Some(token.user.id),
            user_name: token.user.name,
            user_domain_id: token.user.domain.and_then(|domain| domain.id),
            project_id,
            project_name,
            project_domain_id: project_domain.and_then(|domain| domain.id),
            domain_id: token.domain.and_then(|domain| domain.id),
            system_scope: token.system.filter(|system| system.all).map(|_| "all".to_owned()),
            roles: token.roles.into_iter().map(|role| role.name).collect(),
            // Without a word from Keystone there is no such project, and every one counts, as in oslo.context.
            is_admin_project: token.is_admin_project.unwrap_or(true),
            ..Credentials::default()
        };
        Verified {
            credentials,
            expires_at: token.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(json: serde_json::Value) -> Verified {
        serde_json::from_value::<Envelope>(json).unwrap().verified()
    }

    #[test]
    fn a_project_and_its_roles() {
        let verified = verified(serde_json::json!({"token": {
            "methods": ["password"], "audit_ids": ["x"], "is_domain": false,
            "expires_at": "2026-11-21T08:00:00.000000Z", "issued_at": "2026-11-21T07:00:00.000000Z",
            "user": {"id": "u", "name": "mia", "domain": {"id": "d", "name": "D"}, "password_expires_at": null},
            "project": {"id": "p", "name": "proj", "domain": {"id": "e", "name": "E"}},
            "roles": [{"id": "1", "name": "member"}, {"id": "2", "name": "reader"}],
        }}));
        let credentials = verified.credentials;
        assert_eq!(credentials.project_id.as_deref(), Some("p"));
        assert_eq!(credentials.user_domain_id.as_deref(), Some("d"));
        assert_eq!(credentials.project_domain_id.as_deref(), Some("e"));
        assert_eq!(credentials.roles, ["member", "reader"]);
        assert!(credentials.for_project() && !credentials.is_admin);
        assert_eq!(verified.expires_at.to_string(), "2026-11-21T08:00:00Z");
    }

    #[test]
    fn the_whole_system_and_nothing_at_all() {
        let base = |more: serde_json::Value| {
            let mut token = serde_json::json!({"expires_at": "2026-11-21T08:00:00Z", "user": {"id": "u"}});
            token
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            verified(serde_json::json!({"token": token})).credentials
        };
        let system = base(serde_json::json!({"system": {"all": true}, "roles": [{"name": "admin"}]}));
        assert_eq!(system.system_scope.as_deref(), Some("all"));
        assert!(!system.for_project());
        let unscoped = base(serde_json::json!({}));
        assert!(unscoped.roles.is_empty() && !unscoped.for_project());
    }

    #[test]
    fn a_token_without_expiry_or_user_is_none() {
        for body in [
            r#"{"token": {"user": {"id": "u"}}}"#,
            r#"{"token": {"expires_at": "2026-11-21T08:00:00Z"}}"#,
        ] {
            assert!(serde_json::from_str::<Envelope>(body).is_err());
        }
    }
}
