//! What an action is done to: attributes by name.

use std::borrow::Cow;

/// The value of one attribute, as far as rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// true or false
    Bool(bool),
    /// A number.
    Int(u64),
    /// Text; also ids, addresses and whatever is written as one.
    Text(Cow<'a, str>),
}

impl<'a> Value<'a> {
    /// Text that somebody else keeps.
    pub const fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// As rules write it: `True`, `None`, digits, the text.
    pub fn written(&self) -> Cow<'_, str> {
        match self {
            Self::Null => Cow::Borrowed("None"),
            Self::Bool(true) => Cow::Borrowed("True"),
            Self::Bool(false) => Cow::Borrowed("False"),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }
}

/// Attributes by Neutron's names. A name with a resource before it, such as `network:project_id`, is an attribute of
/// the resource that the target belongs to; `ext_parent:project_id` is that of the row it lies below in the API.
pub trait Target {
    /// The value; `None` when the target has no such attribute, which makes every check of it fail.
    fn attribute(&self, name: &str) -> Option<Value<'_>>;
}

/// A target without attributes.
impl Target for () {
    fn attribute(&self, _: &str) -> Option<Value<'_>> {
        None
    }
}

/// A list of attributes.
impl<const N: usize> Target for [(&str, Value<'_>); N] {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        let found = self.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.clone())
    }
}

/// A list of attributes.
impl Target for Vec<(&str, Value<'_>)> {
    fn attribute(&self, name: &str) -> Option<Value<'_>> {
        let found = self.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.clone())
    }
}
