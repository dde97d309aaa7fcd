//! Texts with placeholders: `--size={size}`.
//!
//! Owns their syntax: `{name}` is a placeholder, a name being `[a-z_][a-z0-9_]*`;
//! `{{` and `}}` stand for single braces. Must not know what is put in.

use super::quoted;

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(String),
}

/// Why a text is not a template. Says what is wrong and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `{` without `}`.
    #[error("{} has a {{ that is not closed; write {{name}}, or {{{{ for a brace itself", quoted(.0))]
    NotClosed(String),
    /// `}` without `{`.
    #[error("{} has a }} that closes nothing; write }}}} for a brace itself", quoted(.0))]
    NotOpened(String),
    /// The name cannot be one.
    #[error(
        "{} is not a placeholder's name; write lower-case letters, digits and _, \
         not a digit first, or {{{{ for a brace itself",
        quoted(.0)
    )]
    Name(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// The first malformed placeholder.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            plain.push_str(&rest[..brace]);
            let (here, after) = rest[brace..].split_at(1);
            if let Some(after) = after.strip_prefix(here) {
                plain.push_str(here);
                rest = after;
            } else if here == "}" {
                return Err(Error::NotOpened(text.into()));
            } else {
                let (name, after) =
                    after.split_once('}').ok_or_else(|| Error::NotClosed(text.into()))?;
                if !is_name(name) {
                    return Err(Error::Name(name.into()));
                }
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Placeholder(name.into()));
                rest = after;
            }
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        Ok(Self { pieces })
    }

    /// The names of its placeholders, in their order; one that stands twice comes twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// The text with each placeholder replaced by its value. What is put in is
    /// not read again: braces in a value stay what they are.
    pub fn fill<'a>(&'a self, value: impl Fn(&'a str) -> &'a str) -> String {
        let text = |piece: &'a Piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Placeholder(name) => value(name),
        };
        self.pieces.iter().map(text).collect()
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_named_and_filled() {
        let template = Template::parse("{a}-{{x}}-{_b2}{a}").expect("well formed");
        assert_eq!(template.names().collect::<Vec<_>>(), ["a", "_b2", "a"]);
        assert_eq!(template.fill(|name| if name == "a" { "{_b2}" } else { "" }), "{_b2}-{x}-{_b2}");
    }

    #[test]
    fn a_text_without_placeholders_is_itself() {
        for text in ["", "plain", "ünïcode"] {
            let template = Template::parse(text).expect("well formed");
            assert_eq!(template.names().count(), 0);
            assert_eq!(template.fill(|_| "never"), text);
        }
    }

    #[test]
    fn malformed_placeholders_are_refused() {
        for text in ["{", "a{b", "{a}{"] {
            assert_eq!(Template::parse(text), Err(Error::NotClosed(text.into())), "{text}");
        }
        for text in ["}", "a}b", "{a}}"] {
            assert_eq!(Template::parse(text), Err(Error::NotOpened(text.into())), "{text}");
        }
        for name in ["", "A", "1a", "a b", "a-b", "a{b"] {
            assert_eq!(
                Template::parse(&format!("{{{name}}}")),
                Err(Error::Name(name.into())),
                "{name}"
            );
        }
    }

    #[test]
    fn a_message_shows_single_braces() {
        assert_eq!(
            Error::NotClosed("{a".into()).to_string(),
            r#""{a" has a { that is not closed; write {name}, or {{ for a brace itself"#
        );
    }
}
