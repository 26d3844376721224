//! Who may do what: which rules a request asks, of what target, and how refusals look.
//!
//! Written once for all resources. An action on a row asks the rule of the action and one for each attribute (and each
//! part of one) that the client names and that has a rule of its own. A refusal is 403 for who may see the row, and
//! 404 for who may not: it must not tell that the row is there.

use std::borrow::Cow;

use alcor_model::{FloatingIp, Id, Network, SecurityGroup, resource::SharedType};
use alcor_policy::{Foreseen, RuleId, Target, Value};
use alcor_region::{RegionState, command::Caller, state::Stored as _};
use http::StatusCode;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use crate::{
    attributes::{Attribute, Given, Verb, find},
    auth::Who,
    error::ApiError,
    field::Field,
    parse::Parsed,
    query,
    query::Fields,
    resources::{Resource, View},
    state::ApiState,
};

/// Attributes that name the resource a row belongs to, and that resource.
const PARENTS: &[(&str, &str)] = &[
    ("network_id", "network"),
    ("security_group_id", "security_group"),
    ("floatingip_id", "ext_parent"),
];

/// Values that are as good as none when a client gives them at creation: Neutron's defaults.
fn is_default(name: &str, value: &Parsed) -> bool {
    match (name, value) {
        ("shared" | "is_default" | "router:external", Parsed::Bool(given)) => !given,
        ("port_security_enabled", Parsed::Bool(given)) => *given,
        ("device_id" | "device_owner", Parsed::Text(text)) => text.is_empty(),
        ("binding:vnic_type", Parsed::Text(text)) => text == "normal",
        ("external_gateway_info", Parsed::Null | Parsed::Json(Json::Null)) => true,
        _ => false,
    }
}

/// The rules that an object of a request's body asks, with the attribute that each is about.
pub struct Asked<'a> {
    action: String,
    rule: Option<RuleId>,
    attributes: Vec<(&'a str, RuleId)>,
}

impl<'a> Asked<'a> {
    /// The rules of an action on `object`, before it is known whether its values are any good.
    pub fn of(api: &'a ApiState, action: String, object: &Map<String, Json>) -> Self {
        let mut asked = Self {
            rule: None,
            attributes: Vec::new(),
            action,
        };
        if let Some(rules) = api.policy().action(&asked.action) {
            asked.rule = rules.rule;
            for (name, rule) in &rules.attributes {
                if let Some(attribute) = given_attribute(name, object) {
                    asked.attributes.push((attribute, *rule));
                }
            }
        }
        asked
    }

    /// Leaves out what only says the default.
    pub fn without_defaults(mut self, given: &Given) -> Self {
        self.attributes.retain(|(attribute, _)| {
            given
                .peek(attribute)
                .is_some_and(|value| !is_default(attribute, value))
        });
        self
    }

    /// Whether all of it is allowed.
    pub fn allowed(&self, api: &ApiState, who: &Who, target: &dyn Target) -> bool {
        let allows = |rule: RuleId| api.policy().allows(rule, &who.credentials, target);
        self.rule.is_some_and(allows) && self.attributes.iter().all(|(_, rule)| allows(*rule))
    }

    /// The refusal, in the words of oslo.policy.
    pub fn refusal(&self, api: &ApiState) -> ApiError {
        let mut rules = format!("rule:{}", self.action);
        for (_, rule) in &self.attributes {
            rules = format!("({rules} and rule:{})", api.policy().name(*rule));
        }
        disallowed(&rules)
    }
}

/// The attribute that a rule's name is about, when the object has it: the name itself (which may have colons), or,
/// for `fixed_ips:ip_address`, what is before a colon, when what is after it is in its value.
fn given_attribute<'n>(name: &'n str, object: &Map<String, Json>) -> Option<&'n str> {
    if object.contains_key(name) {
        return Some(name);
    }
    name.match_indices(':').find_map(|(at, _)| {
        let (attribute, part) = (&name[..at], &name[at + 1..]);
        let has_part = match object.get(attribute)? {
            Json::Object(value) => value.contains_key(part),
            Json::Array(values) => values.iter().any(|value| value.get(part).is_some()),
            _ => false,
        };
        has_part.then_some(attribute)
    })
}

fn disallowed(rules: &str) -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "PolicyNotAuthorized",
        format!("{rules} is disallowed by policy"),
    )
}

/// A row, with what a client wants to change in it.
struct RowTarget<'a, R> {
    view: &'a View<R>,
    given: Option<&'a Given>,
}

impl<R: Resource> RowTarget<'_, R> {
    fn own(&self, name: &str) -> Option<Value<'_>> {
        if let Some(value) = self.given.and_then(|given| given.peek(name)) {
            return parsed_value(value);
        }
        let attribute = find(R::ATTRIBUTES, name)?;
        field_value((attribute.get)(self.view))
    }
}

impl<R: Resource> Target for RowTarget<'_, R> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        self.own(name).or_else(|| {
            of_parent(&self.view.snapshot.state, &self.view.caller, name, |id| {
                self.own(id)
            })
        })
    }
}

/// Something that does not exist yet.
struct NewTarget<'a> {
    given: &'a Given,
    owner: &'a str,
    state: &'a RegionState,
    caller: &'a Caller,
}

impl NewTarget<'_> {
    fn own(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "project_id" => Some(Value::text(self.owner)),
            _ => self.given.peek(name).and_then(parsed_value),
        }
    }
}

impl Target for NewTarget<'_> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        self.own(name)
            .or_else(|| of_parent(self.state, self.caller, name, |id| self.own(id)))
    }
}

/// An attribute of the resource that something belongs to: `network:project_id`. Subnets are as external as their
/// network.
fn of_parent<'a>(
    state: &'a RegionState,
    caller: &Caller,
    name: &str,
    own: impl Fn(&str) -> Option<Value<'a>>,
) -> Option<Value<'a>> {
    let (parent, attribute) = match name {
        "router:external" => ("network", name),
        _ => name.split_once(':')?,
    };
    let (reference, _) = PARENTS.iter().find(|(_, resource)| *resource == parent)?;
    let id = Uuid::parse_str(&own(reference)?.written()).ok()?;
    parent_attribute(state, caller, parent, id, attribute)
}

fn parent_attribute<'a>(
    state: &'a RegionState,
    caller: &Caller,
    parent: &str,
    id: Uuid,
    attribute: &str,
) -> Option<Value<'a>> {
    match parent {
        "network" => {
            let network = Network::table(state).get(&Id::from_uuid(id))?;
            match attribute {
                "project_id" => Some(Value::text(&network.standard.project_id)),
                "shared" => Some(Value::Bool(state.shared_with(
                    SharedType::Network,
                    id,
                    &caller.project_id,
                ))),
                "router:external" => Some(Value::Bool(state.external_for(network.id, &caller.project_id))),
                _ => None,
            }
        }
        "security_group" if attribute == "project_id" => {
            let group = SecurityGroup::table(state).get(&Id::from_uuid(id))?;
            Some(Value::text(&group.standard.project_id))
        }
        "ext_parent" if attribute == "project_id" => {
            let floating_ip = FloatingIp::table(state).get(&Id::from_uuid(id))?;
            Some(Value::text(&floating_ip.standard.project_id))
        }
        _ => None,
    }
}

fn field_value(field: Field<'_>) -> Option<Value<'_>> {
    Some(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => Value::Bool(value),
        Field::Int(value) => Value::Int(value),
        Field::Text(value) => Value::text(value),
        Field::Uuid(value) => Value::Text(Cow::Owned(value.to_string())),
        Field::Ip(value) => Value::Text(Cow::Owned(value.to_string())),
        Field::Mac(value) => Value::Text(Cow::Owned(value.to_string())),
        Field::Json(Json::Bool(value)) => Value::Bool(value),
        Field::Json(Json::String(value)) => Value::Text(Cow::Owned(value)),
        Field::Json(Json::Null) => Value::Null,
        _ => return None,
    })
}

fn parsed_value(parsed: &Parsed) -> Option<Value<'_>> {
    Some(match parsed {
        Parsed::Null => Value::Null,
        Parsed::Bool(value) => Value::Bool(*value),
        Parsed::Int(value) => Value::Int(*value),
        Parsed::Text(value) => Value::text(value),
        Parsed::Uuid(value) => Value::Text(Cow::Owned(value.to_string())),
        Parsed::Ip(value) => Value::Text(Cow::Owned(value.to_string())),
        Parsed::Mac(value) => Value::Text(Cow::Owned(value.to_string())),
        Parsed::Json(Json::Bool(value)) => Value::Bool(*value),
        Parsed::Json(Json::String(value)) => Value::text(value),
        Parsed::Json(Json::Null) => Value::Null,
        _ => return None,
    })
}

/// Checks one object of a request's body, by the resource's table and by the policy, for a creation.
///
/// # Errors
/// 400 for what is wrong with it, 403 when the caller may not, 404 for a network that the caller does not see.
pub fn checked_creation<R: Resource>(
    api: &ApiState,
    who: &Who,
    state: &RegionState,
    object: Map<String, Json>,
) -> Result<Given, ApiError> {
    let asked = Asked::of(api, format!("create_{}", R::RULE), &object);
    let given = Given::check(R::ATTRIBUTES, Verb::Post, object)?;
    let asked = asked.without_defaults(&given);
    let owner = owner_of(api, who, &given)?;
    let target = NewTarget {
        given: &given,
        owner: &owner,
        state,
        caller: &who.caller,
    };
    if asked.allowed(api, who, &target) {
        return Ok(given);
    }
    refuse_what_is_not_seen(&given, state, &who.caller)?;
    Err(asked.refusal(api))
}

/// The project that a new resource will belong to.
fn owner_of(api: &ApiState, who: &Who, given: &Given) -> Result<String, ApiError> {
    let text = |name: &str| match given.peek(name) {
        Some(Parsed::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    match text("project_id").or_else(|| text("tenant_id")) {
        Some(project) if project == who.caller.project_id => {}
        Some(project) => {
            let may = |rule: &str| {
                api.policy()
                    .allows_named(rule, &who.credentials, &*who.credentials)
            };
            if !who.credentials.is_admin && !may("service_api") && !may("context_can_set_project_id") {
                return Err(ApiError::bad_request(
                    "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request \
                     requires admin privileges",
                ));
            }
            return Ok(project.to_owned());
        }
        None if !who.has_project() => {
            return Err(ApiError::bad_request(
                "A token for no project has to say whose the resource is: project_id",
            ));
        }
        None => {}
    }
    Ok(who.caller.project_id.clone())
}

/// What a client refers to and does not see is not there, before it is forbidden.
fn refuse_what_is_not_seen(given: &Given, state: &RegionState, caller: &Caller) -> Result<(), ApiError> {
    for (reference, resource) in PARENTS {
        if let Some(id) = given.peek(reference).and_then(parsed_value) {
            let text = id.written();
            // What is no id names nothing that anybody sees.
            let seen = Uuid::parse_str(&text).is_ok_and(|id| match *resource {
                "network" => state.visible_network(caller, Id::from_uuid(id)).is_some(),
                "security_group" => state.visible_security_group(caller, Id::from_uuid(id)).is_some(),
                _ => true,
            });
            if !seen {
                return Err(query::not_found(resource, &text));
            }
        }
    }
    Ok(())
}

/// Checks one object of a request's body, by the resource's table and by the policy, for a change of a row.
///
/// # Errors
/// 400 for what is wrong with it, 403 when the caller may not.
pub fn checked_change<R: Resource>(
    api: &ApiState,
    who: &Who,
    view: &View<R>,
    object: Map<String, Json>,
) -> Result<Given, ApiError> {
    let asked = Asked::of(api, format!("update_{}", R::RULE), &object);
    let given = Given::check(R::ATTRIBUTES, Verb::Put, object)?;
    let target = RowTarget {
        view,
        given: Some(&given),
    };
    if asked.allowed(api, who, &target) {
        return Ok(given);
    }
    Err(refusal_on(api, who, view, &asked))
}

/// Whether the policy lets the caller see a row. The region says whether there is anything to see.
pub fn sees<R: Resource>(api: &ApiState, who: &Who, view: &View<R>) -> bool {
    let target = RowTarget { view, given: None };
    let rule = format!("get_{}", R::RULE);
    api.policy().allows_named(&rule, &who.credentials, &target)
}

fn refusal_on<R: Resource>(api: &ApiState, who: &Who, view: &View<R>, asked: &Asked<'_>) -> ApiError {
    if sees(api, who, view) {
        asked.refusal(api)
    } else {
        query::not_found(R::SINGULAR, &view.row.uuid().to_string())
    }
}

fn plain<'a>(api: &'a ApiState, action: &str) -> Asked<'a> {
    Asked::of(api, action.to_owned(), &Map::new())
}

/// Asks for an action on a row (`add_router_interface`, `delete_port`).
///
/// # Errors
/// 403, or 404 when the caller may not even see it.
pub fn authorize<R: Resource>(
    api: &ApiState,
    who: &Who,
    action: &str,
    view: &View<R>,
) -> Result<(), ApiError> {
    authorize_with(api, who, action, view, &Map::new())
}

/// As [`authorize`], with attributes that have rules of their own (`add_external_gateways:external_gateways`).
///
/// # Errors
/// As [`authorize`].
pub fn authorize_with<R: Resource>(
    api: &ApiState,
    who: &Who,
    action: &str,
    view: &View<R>,
    object: &Map<String, Json>,
) -> Result<(), ApiError> {
    let asked = Asked::of(api, action.to_owned(), object);
    if asked.allowed(api, who, &RowTarget { view, given: None }) {
        return Ok(());
    }
    Err(refusal_on(api, who, view, &asked))
}

/// Asks for an action on what is no row (quotas of a project, hosts).
///
/// # Errors
/// 403.
pub fn authorize_on(api: &ApiState, who: &Who, action: &str, target: &dyn Target) -> Result<(), ApiError> {
    let asked = plain(api, action);
    if asked.allowed(api, who, target) {
        Ok(())
    } else {
        Err(asked.refusal(api))
    }
}

/// The rule for the tags of a resource: `update_network:tags` or `update_segments_tags`, whichever there is.
pub fn authorize_tags<R: Resource>(
    api: &ApiState,
    who: &Who,
    verb: &str,
    view: &View<R>,
) -> Result<(), ApiError> {
    let names = [
        format!("{verb}_{}:tags", R::RULE),
        format!("{verb}_{}_tags", R::PLURAL),
        format!("{verb}_{}", R::RULE),
    ];
    let rule = names.iter().find_map(|name| api.policy().rule(name));
    let target = RowTarget { view, given: None };
    if rule.is_some_and(|rule| api.policy().allows(rule, &who.credentials, &target)) {
        return Ok(());
    }
    let asked = Asked {
        action: rule.map_or_else(String::new, |rule| api.policy().name(rule).to_owned()),
        rule,
        attributes: Vec::new(),
    };
    Err(refusal_on(api, who, view, &asked))
}

/// What of its rows a caller is shown. Rules that depend on the caller alone are decided once, before the first row.
pub struct Shown<'a, R: 'static> {
    api: &'a ApiState,
    who: &'a Who,
    fields: Fields<View<R>>,
    row: Option<RuleId>,
    rows: Foreseen,
    never: Vec<&'a str>,
    depends: Vec<(&'a str, RuleId)>,
}

impl<'a, R: Resource> Shown<'a, R> {
    /// Those of `fields` that the policy allows.
    pub fn new(api: &'a ApiState, who: &'a Who, fields: Fields<View<R>>) -> Self {
        let policy = api.policy();
        let action = policy.action(&format!("get_{}", R::RULE));
        let row = action.and_then(|action| action.rule);
        let mut shown = Self {
            api,
            who,
            fields,
            row,
            rows: row.map_or(Foreseen::Never, |rule| policy.foresee(rule, &who.credentials)),
            never: Vec::new(),
            depends: Vec::new(),
        };
        for (name, rule) in action
            .map(|action| action.attributes.as_slice())
            .unwrap_or_default()
        {
            match policy.foresee(*rule, &who.credentials) {
                Foreseen::Always => {}
                Foreseen::Never => shown.never.push(name),
                Foreseen::Depends => shown.depends.push((name, *rule)),
            }
        }
        shown
    }

    /// All attributes that the policy allows.
    pub fn all(api: &'a ApiState, who: &'a Who) -> Self {
        Self::new(api, who, Fields::all(R::ATTRIBUTES))
    }

    /// Whether an attribute is hidden in every row: it must not be found out by filters and sorting either.
    pub fn hides(&self, attribute: &str) -> bool {
        self.never.contains(&attribute)
    }

    /// Whether the policy hides every row.
    pub fn is_nothing(&self) -> bool {
        self.rows == Foreseen::Never
    }

    /// Whether the policy shows a row.
    pub fn has(&self, view: &View<R>) -> bool {
        match self.rows {
            Foreseen::Always => true,
            Foreseen::Never => false,
            Foreseen::Depends => self.row.is_some_and(|rule| self.allows(rule, view)),
        }
    }

    fn allows(&self, rule: RuleId, view: &View<R>) -> bool {
        let target = RowTarget { view, given: None };
        self.api.policy().allows(rule, &self.who.credentials, &target)
    }

    /// The attributes to show of a row.
    pub fn attributes(&self, view: &View<R>) -> impl Iterator<Item = &'static Attribute<View<R>>> {
        self.fields.iter().filter(move |attribute| {
            !self.hides(attribute.name)
                && self
                    .depends
                    .iter()
                    .all(|(name, rule)| *name != attribute.name || self.allows(*rule, view))
        })
    }
}
