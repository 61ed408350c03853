//! A browser as people have it: Debian's Chromium without a window, driven over its debugging pipe
//! by a script under Node.js.

use crate::{netns::Namespace, process::Scratch, wait};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::fs;

/// What is driven, and how it looks.
#[derive(Clone, Copy, Debug)]
pub struct Browser {
    /// As `Accept-Language` has it, without weights.
    pub language: &'static str,
    /// Of the window, in CSS pixels.
    pub width: u32,
    /// See there.
    pub height: u32,
    /// Whether it prefers dark colours.
    pub dark: bool,
}

impl Browser {
    /// One with a window of 1,280 by 800 pixels.
    pub const USUAL: Self = Self {
        language: "en",
        width: 1_280,
        height: 800,
        dark: false,
    };

    /// Does these steps in turn, in a profile of their own: `{"go": URL}`; `{"until": EXPRESSION}`,
    /// which waits until it is true; `{"run": EXPRESSION}`; `{"shot": FILE}`. Gives the values of
    /// the expressions.
    pub fn run(self, namespace: &Namespace, steps: &Value) -> Result<Vec<Value>> {
        let scratch = Scratch::new()?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser.mjs");
        let profile = scratch.path("profile");
        let wanted = json!({
            "data": profile, "language": self.language, "width": self.width,
            "height": self.height, "dark": self.dark, "steps": steps,
        });
        let said = namespace.output("node", &[script, &wanted.to_string()])?;
        // Its children may still write there.
        wait::until("the browser to leave its profile", wait::SOON, || {
            Ok(fs::remove_dir_all(&profile).ok())
        })?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }
}
