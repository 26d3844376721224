//! Who asks, as rules see it.

use crate::target::{Target, Value};

/// What a token proves of its bearer. Role names are compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user_id: Option<String>,
    /// The user's name.
    pub user_name: Option<String>,
    /// The user's domain.
    pub user_domain_id: Option<String>,
    /// The project that the token is for.
    pub project_id: Option<String>,
    /// That project's name.
    pub project_name: Option<String>,
    /// That project's domain.
    pub project_domain_id: Option<String>,
    /// The domain that the token is for.
    pub domain_id: Option<String>,
    /// `all` when the token is for the whole system.
    pub system_scope: Option<String>,
    /// The roles there.
    pub roles: Vec<String>,
    /// Roles of the service that forwards the request, from its own token.
    pub service_roles: Vec<String>,
    /// The user of that service.
    pub service_user_id: Option<String>,
    /// The project of that service.
    pub service_project_id: Option<String>,
    /// Keystone says that the project is the one of admins.
    pub is_admin_project: bool,
    /// The rule `context_is_admin` holds; set by [`crate::Policy::admit`].
    pub is_admin: bool,
}

impl Credentials {
    /// Whether there is such a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| own.eq_ignore_ascii_case(role))
    }

    /// The token is for one project, not for a domain or the whole system.
    pub const fn for_project(&self) -> bool {
        self.project_id.is_some() && self.system_scope.is_none()
    }
}

/// A name that a rule may use for a part of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    User,
    UserName,
    UserDomain,
    Project,
    ProjectName,
    ProjectDomain,
    Domain,
    System,
    Roles,
    ServiceRoles,
    ServiceUser,
    ServiceProject,
    AdminProject,
    Admin,
}

/// The names, also those that older rules use.
const NAMES: &[(&str, Part)] = &[
    ("user_id", Part::User),
    ("user", Part::User),
    ("user_name", Part::UserName),
    ("user_domain_id", Part::UserDomain),
    ("user_domain", Part::UserDomain),
    ("project_id", Part::Project),
    ("tenant_id", Part::Project),
    ("project_name", Part::ProjectName),
    ("project_domain_id", Part::ProjectDomain),
    ("project_domain", Part::ProjectDomain),
    ("domain_id", Part::Domain),
    ("domain", Part::Domain),
    ("system_scope", Part::System),
    ("roles", Part::Roles),
    ("service_roles", Part::ServiceRoles),
    ("service_user_id", Part::ServiceUser),
    ("service_project_id", Part::ServiceProject),
    ("is_admin_project", Part::AdminProject),
    ("is_admin", Part::Admin),
];

impl Part {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        NAMES
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, name)| *name)
    }

    fn text(self, of: &Credentials) -> Option<&str> {
        match self {
            Self::User => of.user_id.as_deref(),
            Self::UserName => of.user_name.as_deref(),
            Self::UserDomain => of.user_domain_id.as_deref(),
            Self::Project => of.project_id.as_deref(),
            Self::ProjectName => of.project_name.as_deref(),
            Self::ProjectDomain => of.project_domain_id.as_deref(),
            Self::Domain => of.domain_id.as_deref(),
            Self::System => of.system_scope.as_deref(),
            Self::ServiceUser => of.service_user_id.as_deref(),
            Self::ServiceProject => of.service_project_id.as_deref(),
            Self::AdminProject => Some(if of.is_admin_project { "True" } else { "False" }),
            Self::Admin => Some(if of.is_admin { "True" } else { "False" }),
            Self::Roles | Self::ServiceRoles => None,
        }
    }

    /// Whether the credentials have this value, or have it among others. What they do not have is equal to nothing,
    /// not even to another thing that is not there.
    pub(crate) fn is(self, of: &Credentials, wanted: &str) -> bool {
        match self {
            Self::Roles => of.roles.iter().any(|role| role == wanted),
            Self::ServiceRoles => of.service_roles.iter().any(|role| role == wanted),
            _ => self.text(of) == Some(wanted),
        }
    }
}

/// Rules about the caller alone are asked with the credentials themselves as the target.
impl Target for Credentials {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        Part::parse(name)?.text(self).map(Value::text)
    }
}
