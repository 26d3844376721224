//! A rule as a tree, and its evaluation.

use std::borrow::Cow;

use regex::Regex;

use crate::{
    credentials::{Credentials, Part},
    target::{Target, Value},
};

/// A rule; `R` is how it refers to other rules: by name as read, by index once linked.
#[derive(Clone, Debug)]
pub enum Node<R> {
    Const(bool),
    Not(Box<Node<R>>),
    All(Vec<Node<R>>),
    Any(Vec<Node<R>>),
    Rule(R),
    Check(Check),
}

/// One condition.
#[derive(Clone, Debug)]
pub enum Check {
    /// `role:x`
    Role(Pattern),
    /// `project_id:%(x)s`: the caller's project is the owner's.
    Owner(String),
    /// `field:networks:shared=True`
    Field {
        of_networks: bool,
        name: String,
        wanted: Wanted,
    },
    /// `user_id:%(user_id)s`, `is_admin:True`
    Credential(Part, Pattern),
    /// `'x':%(attribute)s`
    Literal(String, Pattern),
}

/// What an attribute has to be.
#[derive(Clone, Debug)]
pub enum Wanted {
    Text(String),
    Match(Regex),
}

impl Wanted {
    fn accepts(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (_, Value::Null) => false,
            (Self::Text(text), Value::Bool(value)) => boolean(text) == Some(*value),
            (Self::Text(text), value) => value.written() == *text,
            (Self::Match(regex), Value::Text(text)) => regex.is_match(text),
            (Self::Match(_), _) => false,
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// Text with attributes of the target in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern(pub Vec<Piece>);

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Attribute(String),
}

impl Pattern {
    /// The text when no attribute is in it.
    fn constant(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    fn filled(&self, target: &dyn Target) -> Option<Cow<'_, str>> {
        if let Some(text) = self.constant() {
            return Some(Cow::Borrowed(text));
        }
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Attribute(name) => out.push_str(&target.attribute(name)?.written()),
            }
        }
        Some(Cow::Owned(out))
    }
}

impl Check {
    pub(crate) fn holds(&self, credentials: &Credentials, target: &dyn Target) -> bool {
        match self {
            Self::Role(pattern) => pattern
                .filled(target)
                .is_some_and(|role| credentials.has_role(&role)),
            Self::Owner(name) => match (&credentials.project_id, target.attribute(name)) {
                (Some(project), Some(Value::Text(owner))) => owner == *project,
                _ => false,
            },
            Self::Field {
                of_networks,
                name,
                wanted,
            } => {
                if let Some(value) = target.attribute(name) {
                    return wanted.accepts(&value);
                }
                // Ports and subnets are asked whether they are of a shared network.
                *of_networks
                    && name == "shared"
                    && target
                        .attribute("network:shared")
                        .is_some_and(|value| wanted.accepts(&value))
            }
            Self::Credential(name, pattern) => pattern
                .filled(target)
                .is_some_and(|wanted| name.is(credentials, &wanted)),
            Self::Literal(text, pattern) => pattern.filled(target).is_some_and(|found| found == *text),
        }
    }

    /// The answer for every target, when there is one.
    pub(crate) fn foresee(&self, credentials: &Credentials) -> Option<bool> {
        match self {
            Self::Role(pattern) => pattern.constant().map(|role| credentials.has_role(role)),
            Self::Credential(name, pattern) => pattern.constant().map(|wanted| name.is(credentials, wanted)),
            Self::Literal(text, pattern) => pattern.constant().map(|found| found == text),
            Self::Owner(_) if credentials.project_id.is_none() => Some(false),
            Self::Owner(_) | Self::Field { .. } => None,
        }
    }
}

impl<R> Node<R> {
    /// The same tree with other references.
    pub(crate) fn link<S, E>(self, link: &mut impl FnMut(R) -> Result<S, E>) -> Result<Node<S>, E> {
        let mut all = |nodes: Vec<Self>| {
            nodes
                .into_iter()
                .map(|node| node.link(link))
                .collect::<Result<Vec<_>, E>>()
        };
        Ok(match self {
            Self::Const(value) => Node::Const(value),
            Self::All(nodes) => Node::All(all(nodes)?),
            Self::Any(nodes) => Node::Any(all(nodes)?),
            Self::Not(node) => Node::Not(Box::new(node.link(link)?)),
            Self::Rule(reference) => Node::Rule(link(reference)?),
            Self::Check(check) => Node::Check(check),
        })
    }
}
