//! The terminal while `top` has it.
//!
//! Owns taking it and giving it back as it was, however `top` ends. Must not know what
//! is drawn.

use std::io;

use ratatui::{DefaultTerminal, Frame, layout::Size};

use super::super::{exit::Exit, problem::Problem};

/// The whole screen, until it is dropped. A panic gives the terminal back before its
/// message is printed.
pub struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// [`Exit::Internal`] if it cannot be had.
    pub fn take() -> Result<Self, Problem> {
        ratatui::try_init().map(Self).map_err(|wrong| {
            // It may have been taken halfway.
            ratatui::restore();
            gone(&wrong)
        })
    }

    /// How large it is at the moment.
    ///
    /// # Errors
    /// [`Exit::Internal`] if there is no terminal any more.
    pub fn size(&self) -> Result<Size, Problem> {
        self.0.size().map_err(|wrong| gone(&wrong))
    }

    /// Draws a picture; only what differs from the one before is written.
    ///
    /// # Errors
    /// As [`Self::size`].
    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> Result<(), Problem> {
        self.0.draw(picture).map(|_| ()).map_err(|wrong| gone(&wrong))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After a panic it has been given back, and its message must stay.
        if std::thread::panicking() {
            return;
        }
        // A terminal that has gone needs nothing back.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// The terminal cannot be used.
pub fn gone(wrong: &io::Error) -> Problem {
    Problem::new(Exit::Internal, format!("cannot use the terminal: {wrong}"))
}
