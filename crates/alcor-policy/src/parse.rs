//! Reads rules: text in oslo.policy's language, or its older form of lists.

use regex::Regex;

use crate::{
    credentials::Part,
    rule::{Check, Node, Pattern, Piece, Wanted},
};

/// Longest rule in bytes.
pub const MAX_RULE_BYTES: usize = 16 << 10;

/// Deepest nesting of parentheses and `not` in a rule, and longest chain of rules that refer to rules.
pub const MAX_DEPTH: usize = 32;

/// Why a rule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than [`MAX_RULE_BYTES`].
    #[error("it is longer than {MAX_RULE_BYTES} bytes")]
    TooLong,
    /// Deeper than [`MAX_DEPTH`].
    #[error("it is nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// Ends where something has to follow.
    #[error("it ends where a condition or ')' has to follow")]
    Ended,
    /// Something that does not belong there.
    #[error("'{0}' does not belong there")]
    Unexpected(String),
    /// Not `kind:match`.
    #[error("'{0}' is no condition of the form kind:match")]
    NoCondition(String),
    /// A kind that asks another server.
    #[error("'{0}' would ask another server, which is not supported")]
    Remote(String),
    /// Neither a check nor a part of the credentials nor a literal.
    #[error("'{0}' is neither a check nor a part of credentials nor a literal")]
    UnknownKind(String),
    /// `project_id:` and `tenant_id:` compare with an attribute of the target.
    #[error("'{0}' has to be of the form project_id:%(attribute)s")]
    BadOwner(String),
    /// `field:` without resource, attribute and value.
    #[error("'{0}' has to be of the form field:resource:attribute=value")]
    BadField(String),
    /// A `%` that begins no `%(attribute)s`.
    #[error("'{0}' has a '%' that begins no %(attribute)s")]
    BadPattern(String),
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    Open,
    Close,
    And,
    Or,
    Not,
    Word(&'a str),
}

/// Parentheses at the ends of a word are tokens; inside of it they belong to it (`%(name)s`).
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for word in text.split_whitespace() {
        let opened = word.trim_start_matches('(');
        tokens.extend((0..word.len() - opened.len()).map(|_| Token::Open));
        let closed = opened.trim_end_matches(')');
        if !closed.is_empty() {
            tokens.push(match closed.to_ascii_lowercase().as_str() {
                "and" => Token::And,
                "or" => Token::Or,
                "not" => Token::Not,
                _ => Token::Word(closed),
            });
        }
        tokens.extend((0..opened.len() - closed.len()).map(|_| Token::Close));
    }
    tokens
}

struct Parser<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'a>>>,
}

/// Reads a rule. The empty rule allows everything.
///
/// # Errors
/// Why it cannot be read.
pub fn text(rule: &str) -> Result<Node<String>, ParseError> {
    if rule.len() > MAX_RULE_BYTES {
        return Err(ParseError::TooLong);
    }
    if rule.trim().is_empty() {
        return Ok(Node::Const(true));
    }
    let mut parser = Parser {
        tokens: tokens(rule).into_iter().peekable(),
    };
    let node = parser.any(0)?;
    match parser.tokens.next() {
        None => Ok(node),
        Some(token) => Err(unexpected(&token)),
    }
}

/// Reads the form of lists: one of the members has to hold; a member that is a list holds when all of it holds.
///
/// # Errors
/// Why it cannot be read.
pub fn lists(rule: &[Vec<String>]) -> Result<Node<String>, ParseError> {
    if rule.is_empty() {
        return Ok(Node::Const(true));
    }
    let members = rule.iter().filter(|member| !member.is_empty());
    members
        .map(|member| {
            member
                .iter()
                .map(|word| condition(word))
                .collect::<Result<_, _>>()
                .map(Node::All)
        })
        .collect::<Result<_, _>>()
        .map(Node::Any)
}

fn unexpected(token: &Token<'_>) -> ParseError {
    ParseError::Unexpected(
        match token {
            Token::Open => "(",
            Token::Close => ")",
            Token::And => "and",
            Token::Or => "or",
            Token::Not => "not",
            Token::Word(word) => word,
        }
        .to_owned(),
    )
}

impl Parser<'_> {
    fn any(&mut self, depth: usize) -> Result<Node<String>, ParseError> {
        self.joined(&Token::Or, |parser| parser.all(depth), Node::Any)
    }

    fn all(&mut self, depth: usize) -> Result<Node<String>, ParseError> {
        self.joined(&Token::And, |parser| parser.one(depth), Node::All)
    }

    fn joined(
        &mut self,
        by: &Token<'static>,
        mut part: impl FnMut(&mut Self) -> Result<Node<String>, ParseError>,
        join: fn(Vec<Node<String>>) -> Node<String>,
    ) -> Result<Node<String>, ParseError> {
        let first = part(self)?;
        if self.tokens.peek() != Some(by) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.tokens.next_if(|token| token == by).is_some() {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn one(&mut self, depth: usize) -> Result<Node<String>, ParseError> {
        if depth >= MAX_DEPTH {
            return Err(ParseError::TooDeep);
        }
        match self.tokens.next().ok_or(ParseError::Ended)? {
            Token::Not => Ok(Node::Not(Box::new(self.one(depth + 1)?))),
            Token::Open => {
                let node = self.any(depth + 1)?;
                match self.tokens.next().ok_or(ParseError::Ended)? {
                    Token::Close => Ok(node),
                    token => Err(unexpected(&token)),
                }
            }
            Token::Word(word) => condition(word),
            token => Err(unexpected(&token)),
        }
    }
}

fn condition(word: &str) -> Result<Node<String>, ParseError> {
    match word {
        "@" => return Ok(Node::Const(true)),
        "!" => return Ok(Node::Const(false)),
        _ => {}
    }
    let (kind, matched) = word
        .split_once(':')
        .ok_or_else(|| ParseError::NoCondition(word.to_owned()))?;
    Ok(Node::Check(match kind {
        "rule" => return Ok(Node::Rule(matched.to_owned())),
        "role" => Check::Role(pattern(matched)?),
        "project_id" | "tenant_id" => owner(word, matched)?,
        "field" => field(word, matched)?,
        "http" | "https" => return Err(ParseError::Remote(word.to_owned())),
        _ => match (literal(kind), Part::parse(kind)) {
            (Some(text), _) => Check::Literal(text, pattern(matched)?),
            (None, Some(name)) => Check::Credential(name, pattern(matched)?),
            (None, None) => return Err(ParseError::UnknownKind(word.to_owned())),
        },
    }))
}

/// The old name of the owner means the same.
fn attribute_name(name: &str) -> String {
    match name.strip_suffix("tenant_id") {
        Some(prefix) if prefix.is_empty() || prefix.ends_with(':') => format!("{prefix}project_id"),
        _ => name.to_owned(),
    }
}

fn owner(word: &str, matched: &str) -> Result<Check, ParseError> {
    match pattern(matched)?.0.as_slice() {
        [Piece::Attribute(name)] => Ok(Check::Owner(name.clone())),
        _ => Err(ParseError::BadOwner(word.to_owned())),
    }
}

/// Attributes may have colons in their names (`router:external`), values too (`~^network:`).
fn field(word: &str, matched: &str) -> Result<Check, ParseError> {
    let bad = || ParseError::BadField(word.to_owned());
    let (resource, rest) = matched.split_once(':').ok_or_else(bad)?;
    let (name, wanted) = rest.split_once('=').ok_or_else(bad)?;
    let wanted = match wanted.strip_prefix('~') {
        Some(regex) => Wanted::Match(Regex::new(&format!("^(?:{regex})")).map_err(|_| bad())?),
        None => Wanted::Text(wanted.to_owned()),
    };
    Ok(Check::Field {
        of_networks: resource == "networks",
        name: attribute_name(name),
        wanted,
    })
}

/// `'x'`, `"x"`, a number, `True`, `False`, `None`.
fn literal(kind: &str) -> Option<String> {
    for quote in ['\'', '"'] {
        if let Some(text) = kind.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return Some(text.to_owned());
        }
    }
    let number = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_digit());
    (number || matches!(kind, "True" | "False" | "None")).then(|| kind.to_owned())
}

fn pattern(text: &str) -> Result<Pattern, ParseError> {
    let bad = || ParseError::BadPattern(text.to_owned());
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let (name, after) = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'))
            .ok_or_else(bad)?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Attribute(attribute_name(name)));
        rest = after.strip_prefix('s').ok_or_else(bad)?;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(Pattern(pieces))
}
