//! Which key means what.
//!
//! Owns the keys and their help. Must not know what is done about them.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::layout::Panel;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Leave.
    Quit,
    /// Leave what is on top: the help, or all.
    Back,
    /// Look at this panel.
    Focus(Panel),
    /// Look at the next panel.
    Next,
    /// Look at the panel before.
    Previous,
    /// See other rows of the panel.
    Scroll(Scroll),
    /// See only this panel, or all again.
    Zoom,
    /// Hold the picture, or let it go on.
    Freeze,
    /// See the keys, or not.
    Help,
    /// See everything about the selected row, or not.
    Details,
    /// Begin to write what rows must have in them.
    Filter,
    /// One more character of that.
    Write(char),
    /// The last character was wrong.
    Erase,
}

/// Where to, in a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scroll {
    /// A row up.
    Up,
    /// A row down.
    Down,
    /// A screenful up.
    PageUp,
    /// A screenful down.
    PageDown,
    /// To the first row.
    Home,
    /// To the last row.
    End,
}

/// The keys for people: which, what they do, and the same in a word.
pub const HELP: [(&str, &str, &str); 9] = [
    ("q", "quit; so do Esc and Ctrl-C", "quit"),
    ("?", "this help", "help"),
    ("Tab", "next panel; Shift-Tab: the one before; 1 2 3: that one", "panel"),
    ("↑↓", "scroll and select; so do k j; PgUp PgDn: a page; Home End: to the ends", "scroll"),
    ("z", "this panel on the whole screen, and back", "zoom"),
    ("Space", "freeze the picture, and let it go on", "freeze"),
    ("/", "only rows that have in them what you write; Esc: all again", "filter"),
    ("Enter", "everything about the selected row", "details"),
    ("", "events scroll on by themselves while the newest is in sight", ""),
];

/// What this key asks for, if anything.
pub fn command(key: KeyEvent) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Command::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') => Command::Quit,
        KeyCode::Esc => Command::Back,
        KeyCode::Tab => Command::Next,
        KeyCode::BackTab => Command::Previous,
        KeyCode::Char('1') => Command::Focus(Panel::Queues),
        KeyCode::Char('2') => Command::Focus(Panel::Workers),
        KeyCode::Char('3') => Command::Focus(Panel::Events),
        KeyCode::Up | KeyCode::Char('k') => Command::Scroll(Scroll::Up),
        KeyCode::Down | KeyCode::Char('j') => Command::Scroll(Scroll::Down),
        KeyCode::PageUp => Command::Scroll(Scroll::PageUp),
        KeyCode::PageDown => Command::Scroll(Scroll::PageDown),
        KeyCode::Home => Command::Scroll(Scroll::Home),
        KeyCode::End => Command::Scroll(Scroll::End),
        KeyCode::Char('z') => Command::Zoom,
        KeyCode::Char(' ') => Command::Freeze,
        KeyCode::Char('?') => Command::Help,
        KeyCode::Enter => Command::Details,
        KeyCode::Char('/') => Command::Filter,
        _ => return None,
    })
}

/// What this key asks for while a filter is written: most are a part of it.
pub fn written(key: KeyEvent) -> Option<Command> {
    let is_typed = !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char(c) if is_typed => Some(Command::Write(c)),
        KeyCode::Backspace => Some(Command::Erase),
        KeyCode::Tab | KeyCode::BackTab => None,
        _ => command(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_command() {
        let table = [
            (KeyCode::Char('q'), Command::Quit),
            (KeyCode::Esc, Command::Back),
            (KeyCode::Tab, Command::Next),
            (KeyCode::BackTab, Command::Previous),
            (KeyCode::Char('1'), Command::Focus(Panel::Queues)),
            (KeyCode::Char('2'), Command::Focus(Panel::Workers)),
            (KeyCode::Char('3'), Command::Focus(Panel::Events)),
            (KeyCode::Up, Command::Scroll(Scroll::Up)),
            (KeyCode::Down, Command::Scroll(Scroll::Down)),
            (KeyCode::PageUp, Command::Scroll(Scroll::PageUp)),
            (KeyCode::PageDown, Command::Scroll(Scroll::PageDown)),
            (KeyCode::Home, Command::Scroll(Scroll::Home)),
            (KeyCode::End, Command::Scroll(Scroll::End)),
            (KeyCode::Char('z'), Command::Zoom),
            (KeyCode::Char(' '), Command::Freeze),
            (KeyCode::Char('?'), Command::Help),
            (KeyCode::Char('j'), Command::Scroll(Scroll::Down)),
            (KeyCode::Char('k'), Command::Scroll(Scroll::Up)),
            (KeyCode::Char('/'), Command::Filter),
            (KeyCode::Enter, Command::Details),
        ];
        for (code, expected) in table {
            assert_eq!(command(code.into()), Some(expected), "{code:?}");
        }
        assert_eq!(command(KeyCode::BackTab.into()), Some(Command::Previous));
    }

    #[test]
    fn ctrl_c_quits_and_other_keys_do_nothing() {
        let ctrl = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
        assert_eq!(command(ctrl('c')), Some(Command::Quit));
        assert_eq!(command(ctrl('q')), None);
        assert_eq!(command(KeyCode::Char('c').into()), None);
        // Shift is a part of the character: on many keyboards `?` needs it.
        let shifted = KeyEvent::new(KeyCode::Char('?'), KeyModifiers::SHIFT);
        assert_eq!(command(shifted), Some(Command::Help));
        let tab = KeyEvent::new(KeyCode::BackTab, KeyModifiers::SHIFT);
        assert_eq!(command(tab), Some(Command::Previous));
    }

    #[test]
    fn while_a_filter_is_written_keys_are_letters() {
        assert_eq!(written(KeyCode::Char('q').into()), Some(Command::Write('q')));
        assert_eq!(written(KeyCode::Backspace.into()), Some(Command::Erase));
        assert_eq!(written(KeyCode::Esc.into()), Some(Command::Back));
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(written(ctrl_c), Some(Command::Quit));
    }

    #[test]
    fn a_key_acts_once_when_it_is_pressed_and_released() {
        let released =
            KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::from(KeyCode::Char(' ')) };
        assert_eq!(command(released), None);
    }
}
