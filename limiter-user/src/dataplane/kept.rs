//! What stays when the process ends: kept in order, left to the next one, or
//! taken off.

use super::{
    DataPlane, Error, Pins, attach,
    ledger::{Ledger, Meta},
    object::KEPT,
    pins::Set,
    predecessor::Predecessor,
};

/// Where maps and links are kept.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) pins: Pins,
    pub(super) set: Set,
    /// What is said of the set.
    pub(super) meta: Meta,
    /// What is at work until this program takes over, if that has other maps.
    pub(super) before: Option<Predecessor>,
}

impl DataPlane {
    /// Whether what it has outlasts this process.
    pub const fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Gives what has lost its pin a new one, in a file system mounted anew if need
    /// be. Returns how many had; all is as it should be at 0.
    ///
    /// # Errors
    ///
    /// [`Error::Pins`]: without pins the program ends with this process.
    pub fn mend_pins(&mut self) -> Result<usize, Error> {
        let Some(kept) = &mut self.kept else {
            return Ok(0);
        };
        if !kept.pins.is_mounted() {
            kept.pins = Pins::open(kept.pins.root())?;
        }
        kept.set.mend()?;
        let mut mended = usize::from(!Ledger::is_in(&kept.set));
        self.ledger.pin(&kept.set)?;
        for name in KEPT {
            if !kept.set.has(name) {
                kept.set.pin(name, self.object.kept(name)?)?;
                mended += 1;
            }
        }
        Ok(mended + self.interfaces.mend()?)
    }

    /// Leaves the program at work where it is attached, for the next process to take
    /// over; without pins it ends. Where it is attached nowhere, or has not taken
    /// over, nothing of it is left.
    ///
    /// # Errors
    ///
    /// [`Error::Pins`].
    pub fn leave(&self) -> Result<(), Error> {
        let is_unused = self.interfaces.attachments().next().is_none();
        match &self.kept {
            Some(kept) if is_unused || !kept.meta.is_complete => Ok(kept.set.remove()?),
            _ => Ok(()),
        }
    }
}

/// Takes the program off one interface or all, and removes what was kept for it,
/// while no daemon runs. Returns the interfaces.
///
/// # Errors
///
/// [`Error::Pins`].
pub fn release(pins: &Pins, interface: Option<&str>) -> Result<Vec<String>, Error> {
    let links = pins.links();
    let (mut released, mut left) = (Vec::new(), 0);
    for pinned in links.read()? {
        // One that was moved to another network namespace goes with all of them.
        let name = match attach::of_pinned(&pinned) {
            Ok(attachment) => attachment.interface,
            Err(_) => format!("index {} of another network namespace", pinned.index),
        };
        if interface.is_some_and(|meant| meant != name) {
            left += 1;
            continue;
        }
        attach::let_go(&pinned.link)?;
        links.forget(pinned.index)?;
        released.push(name);
    }
    if left == 0 {
        for set in pins.sets()? {
            set.remove()?;
        }
    }
    Ok(released)
}
