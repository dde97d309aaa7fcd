//! JSON text, looked through without a copy of what is in it.
//!
//! Owns how text is judged that is not taken apart: a handler's result, and what a user
//! wrote, in which a number of any length can stand.

use super::{MAX_EXACT, Why, Wrong};

/// Looks for what is nested deeper than `max_depth`, and for whole numbers that are not
/// exact as doubles. `text` must be JSON; of anything else no more is said than what meets
/// the eye.
///
/// # Errors
/// The first that is wrong.
pub fn scan(text: &str, max_depth: usize) -> Result<(), Wrong> {
    let mut scan = Scan { text, at: 0, inside: Vec::new() };
    while let Some(byte) = text.as_bytes().get(scan.at) {
        match byte {
            b'"' => scan.string(),
            b'{' | b'[' if scan.inside.len() >= max_depth => {
                return Err(scan.wrong(Why::TooDeep(max_depth)));
            }
            b'{' => scan.enter(Container::Object { name: (0, 0), is_named: false }),
            b'[' => scan.enter(Container::List(0)),
            b'}' | b']' => scan.leave(),
            b',' => scan.next(),
            b'-' | b'0'..=b'9' => scan.number()?,
            _ => scan.at += 1,
        }
    }
    Ok(())
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
    /// The objects and lists around this container.
    inside: Vec<Container>,
}

/// Where in an object or a list.
enum Container {
    /// The name begins and ends here; it was read, and what it names follows.
    Object {
        name: (usize, usize),
        is_named: bool,
    },
    List(usize),
}

impl Scan<'_> {
    fn enter(&mut self, container: Container) {
        self.inside.push(container);
        self.at += 1;
    }

    fn leave(&mut self) {
        self.inside.pop();
        self.at += 1;
    }

    /// The next name or element.
    fn next(&mut self) {
        match self.inside.last_mut() {
            Some(Container::Object { is_named, .. }) => *is_named = false,
            Some(Container::List(at)) => *at += 1,
            None => {}
        }
        self.at += 1;
    }

    /// A string, which may be the name of what follows.
    fn string(&mut self) {
        let begin = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut end = begin;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let end = end.min(bytes.len());
        self.at = end + 1;
        if let Some(Container::Object { name, is_named: is_named @ false }) = self.inside.last_mut()
        {
            (*name, *is_named) = ((begin, end), true);
        }
    }

    fn number(&mut self) -> Result<(), Wrong> {
        let rest = &self.text[self.at..];
        let is_of_it = |c: char| c.is_ascii_digit() || ".+-eE".contains(c);
        let token = &rest[..rest.find(|c| !is_of_it(c)).unwrap_or(rest.len())];
        if !is_exact(token) {
            let shown: String = token.chars().take(40).collect();
            let more = if shown.len() < token.len() { "..." } else { "" };
            return Err(self.wrong(Why::NotExact(format!("{shown}{more}"))));
        }
        self.at += token.len();
        Ok(())
    }

    fn wrong(&self, why: Why) -> Wrong {
        let mut path = String::new();
        for container in &self.inside {
            match container {
                Container::Object { name: (begin, end), .. } => {
                    path.push('.');
                    path.push_str(self.text.get(*begin..*end).unwrap_or_default());
                }
                Container::List(at) => {
                    path.push('[');
                    path.push_str(&at.to_string());
                    path.push(']');
                }
            }
        }
        Wrong { path, why }
    }
}

/// Whether a number becomes the double that it says. A fraction or an exponent says that a
/// double is meant; a whole number with a fraction of zeros is looked at all the same.
fn is_exact(token: &str) -> bool {
    if token.contains(['e', 'E']) {
        return true;
    }
    let digits = token.trim_start_matches('-');
    match digits.split_once('.') {
        None => digits.parse::<u64>().is_ok_and(|number| number <= MAX_EXACT),
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => {
            // A double is below 2^1024, and beyond 2^127 nobody writes its digits.
            let double: f64 = digits.parse().unwrap_or(f64::INFINITY);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole")]
            whole.parse::<u128>().is_ok_and(|whole| whole == double as u128)
        }
        Some(_) => true,
    }
}
