//! All rules, linked, and decisions.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::{
    credentials::Credentials,
    defaults, parse,
    parse::{MAX_DEPTH, ParseError},
    rule::Node,
    target::Target,
};

/// Largest file of overrides in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// One rule of a [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(usize);

/// Why there is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("the policy file has more than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// The file is no mapping of names to rules.
    #[error("the policy file is no YAML mapping of names to rules: {0}")]
    Yaml(String),
    /// A rule that cannot be read.
    #[error("rule '{rule}' cannot be read: {error}")]
    Unreadable {
        /// Its name.
        rule: String,
        /// Why.
        error: ParseError,
    },
    /// A reference to nothing.
    #[error("rule '{rule}' refers to rule '{to}', which does not exist")]
    NoSuchRule {
        /// The rule with the reference.
        rule: String,
        /// The name in it.
        to: String,
    },
    /// Rules that refer to each other in a circle, or in too long a chain.
    #[error("rule '{rule}' refers to itself, or to a chain of more than {MAX_DEPTH} rules")]
    Circle {
        /// One of them.
        rule: String,
    },
}

/// What is known of a decision before there is a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// Allowed for every target.
    Always,
    /// Refused for every target.
    Never,
    /// It depends on the target.
    Depends,
}

/// The rules of one action: for the action itself, and for attributes that take part in it.
#[derive(Clone, Debug, Default)]
pub struct Action {
    /// The rule with the action's name; none when only attributes have rules.
    pub rule: Option<RuleId>,
    /// Attributes with rules of their own: `shared` for the rule `create_network:shared`. Parts of attributes follow
    /// the attribute's name after a colon (`fixed_ips:ip_address`).
    pub attributes: Vec<(Box<str>, RuleId)>,
}

struct Rule {
    name: Box<str>,
    node: Node<RuleId>,
    /// Only tokens for a project may use it: so by default. Rules from the file say themselves what they want.
    of_projects: bool,
}

/// All rules. Made once; decisions only read. The default has no rules and allows nothing.
#[derive(Default)]
pub struct Policy {
    rules: Vec<Rule>,
    names: HashMap<Box<str>, RuleId>,
    actions: HashMap<Box<str>, Action>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Lists(Vec<Member>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Member {
    One(String),
    All(Vec<String>),
}

impl Written {
    fn parse(self) -> Result<Node<String>, ParseError> {
        match self {
            Self::Text(text) => parse::text(&text),
            Self::Lists(members) => {
                let lists: Vec<Vec<String>> = members
                    .into_iter()
                    .map(|member| match member {
                        Member::One(word) => vec![word],
                        Member::All(words) => words,
                    })
                    .collect();
                parse::lists(&lists)
            }
        }
    }
}

fn read_file(text: &str) -> Result<BTreeMap<String, Written>, PolicyError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(PolicyError::TooLarge);
    }
    // A file of comments only, which is how such a file begins its life.
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(BTreeMap::new());
    }
    serde_saphyr::from_str(text).map_err(|error| PolicyError::Yaml(error.to_string()))
}

impl Policy {
    /// Neutron's defaults, and over them the rules of a file in oslo.policy's YAML form: names and rules.
    ///
    /// # Errors
    /// When anything in it is in doubt. It is not used in part: a rule left out could have been the one that refuses.
    pub fn load(file: Option<&str>) -> Result<Self, PolicyError> {
        let overrides = file.map(read_file).transpose()?.unwrap_or_default();
        let mut read: BTreeMap<String, (Node<String>, bool)> = BTreeMap::new();
        let unreadable = |rule: &str| {
            let rule = rule.to_owned();
            move |error| PolicyError::Unreadable { rule, error }
        };
        for (name, text, of_projects) in defaults::rules() {
            let node = parse::text(text).map_err(unreadable(&name))?;
            read.insert(name, (node, of_projects));
        }
        for (name, written) in overrides {
            let node = written.parse().map_err(unreadable(&name))?;
            read.insert(name, (node, false));
        }
        let policy = Self::link(read)?;
        policy.refuse_circles()?;
        Ok(policy)
    }

    fn link(read: BTreeMap<String, (Node<String>, bool)>) -> Result<Self, PolicyError> {
        let names: HashMap<Box<str>, RuleId> = read
            .keys()
            .enumerate()
            .map(|(index, name)| (name.as_str().into(), RuleId(index)))
            .collect();
        let mut rules = Vec::with_capacity(read.len());
        let mut actions: HashMap<Box<str>, Action> = HashMap::new();
        for (name, (node, of_projects)) in read {
            let id = RuleId(rules.len());
            match name.split_once(':') {
                Some((action, attribute)) => {
                    let action = actions.entry(action.into()).or_default();
                    action.attributes.push((attribute.into(), id));
                }
                None => actions.entry(name.as_str().into()).or_default().rule = Some(id),
            }
            let node = node.link(&mut |to: String| {
                names
                    .get(to.as_str())
                    .copied()
                    .ok_or_else(|| PolicyError::NoSuchRule {
                        rule: name.clone(),
                        to,
                    })
            })?;
            rules.push(Rule {
                name: name.into(),
                node,
                of_projects,
            });
        }
        Ok(Self {
            rules,
            names,
            actions,
        })
    }

    fn refuse_circles(&self) -> Result<(), PolicyError> {
        let mut depths = vec![None; self.rules.len()];
        for rule in &self.rules {
            if self.depth(&rule.node, 0, &mut depths).is_none() {
                return Err(PolicyError::Circle {
                    rule: rule.name.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Longest chain of references below a node; `None` when it is longer than allowed, as a circle is.
    fn depth(&self, node: &Node<RuleId>, above: usize, known: &mut [Option<usize>]) -> Option<usize> {
        match node {
            Node::Const(_) | Node::Check(_) => Some(0),
            Node::Not(node) => self.depth(node, above, known),
            Node::All(nodes) | Node::Any(nodes) => {
                let mut deepest = 0;
                for node in nodes {
                    deepest = deepest.max(self.depth(node, above, known)?);
                }
                Some(deepest)
            }
            Node::Rule(id) => {
                let below = match known.get(id.0).copied().flatten() {
                    Some(below) => below,
                    None if above >= MAX_DEPTH => return None,
                    None => {
                        let below = self.depth(&self.rules.get(id.0)?.node, above + 1, known)?;
                        if let Some(slot) = known.get_mut(id.0) {
                            *slot = Some(below);
                        }
                        below
                    }
                };
                Some(below + 1).filter(|depth| *depth <= MAX_DEPTH)
            }
        }
    }

    /// The rule of a name.
    pub fn rule(&self, name: &str) -> Option<RuleId> {
        self.names.get(name).copied()
    }

    /// The name of a rule.
    pub fn name(&self, rule: RuleId) -> &str {
        self.rules.get(rule.0).map_or("", |rule| &rule.name)
    }

    /// The rules of an action such as `create_network`.
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.actions.get(name)
    }

    /// Whether a rule allows something.
    pub fn allows(&self, rule: RuleId, credentials: &Credentials, target: &dyn Target) -> bool {
        self.rules.get(rule.0).is_some_and(|rule| {
            (credentials.for_project() || !rule.of_projects) && self.holds(&rule.node, credentials, target)
        })
    }

    /// Whether the rule of this name allows something. A name without a rule allows nothing.
    pub fn allows_named(&self, name: &str, credentials: &Credentials, target: &dyn Target) -> bool {
        self.rule(name)
            .is_some_and(|rule| self.allows(rule, credentials, target))
    }

    /// What a rule says of every target, so that lists need not ask for each row.
    pub fn foresee(&self, rule: RuleId, credentials: &Credentials) -> Foreseen {
        let Some(rule) = self.rules.get(rule.0) else {
            return Foreseen::Never;
        };
        if rule.of_projects && !credentials.for_project() {
            return Foreseen::Never;
        }
        match self.foresee_node(&rule.node, credentials) {
            Some(true) => Foreseen::Always,
            Some(false) => Foreseen::Never,
            None => Foreseen::Depends,
        }
    }

    /// Says in the credentials whether their bearer is an admin.
    pub fn admit(&self, mut credentials: Credentials) -> Credentials {
        credentials.is_admin = self.allows_named("context_is_admin", &credentials, &credentials);
        credentials
    }

    fn holds(&self, node: &Node<RuleId>, credentials: &Credentials, target: &dyn Target) -> bool {
        match node {
            Node::Const(value) => *value,
            Node::Not(node) => !self.holds(node, credentials, target),
            Node::All(nodes) => nodes.iter().all(|node| self.holds(node, credentials, target)),
            Node::Any(nodes) => nodes.iter().any(|node| self.holds(node, credentials, target)),
            Node::Rule(id) => self
                .rules
                .get(id.0)
                .is_some_and(|rule| self.holds(&rule.node, credentials, target)),
            Node::Check(check) => check.holds(credentials, target),
        }
    }

    fn foresee_node(&self, node: &Node<RuleId>, credentials: &Credentials) -> Option<bool> {
        let joined = |nodes: &[Node<RuleId>], decisive: bool| {
            let mut all_known = true;
            for node in nodes {
                match self.foresee_node(node, credentials) {
                    Some(value) if value == decisive => return Some(decisive),
                    Some(_) => {}
                    None => all_known = false,
                }
            }
            all_known.then_some(!decisive)
        };
        match node {
            Node::Const(value) => Some(*value),
            Node::Not(node) => self.foresee_node(node, credentials).map(|value| !value),
            Node::All(nodes) => joined(nodes, false),
            Node::Any(nodes) => joined(nodes, true),
            Node::Rule(id) => self
                .rules
                .get(id.0)
                .map_or(Some(false), |rule| self.foresee_node(&rule.node, credentials)),
            Node::Check(check) => check.foresee(credentials),
        }
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}
