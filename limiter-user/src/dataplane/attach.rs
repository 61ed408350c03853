//! The program on interfaces.

use super::{
    cause,
    error::Error,
    model::{AttachedMode, Attachment},
    netlink,
    object::Object,
    pins::{Links, Pinned},
    sys::{Link, LinkMode, Table},
};
use crate::policy::Mode;
use limiter_common::layout::{INTERFACE_PLACES, Interface, LOOPBACK, interface_place};
use std::io;

/// The interfaces, their links and their rows of counters.
#[derive(Debug)]
pub(super) struct Interfaces {
    table: Table<u32, Interface>,
    /// By row: what has it, or had it last; row 0 stands for every interface that
    /// is not known.
    rows: Vec<Option<Attachment>>,
    attached: Vec<(Attachment, Link)>,
    factor: u32,
    capacity: u32,
    /// Where links are kept when the process has ended.
    links: Option<Links>,
}

/// An interface that may be attached to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    pub(super) index: u32,
    row: usize,
}

impl Interfaces {
    pub(super) fn new(table: Table<u32, Interface>, capacity: u32, links: Option<Links>) -> Self {
        Self {
            table,
            rows: vec![None],
            attached: Vec::new(),
            factor: 1,
            capacity,
            links,
        }
    }

    /// Takes over the rows that another process gave and the links that it left,
    /// under names and modes that the kernel tells now.
    pub(super) fn adopt(&mut self, rows: Vec<Attachment>, factor: u32) -> Result<(), Error> {
        self.rows.extend(rows.into_iter().map(Some));
        self.factor = factor;
        self.adopt_links()
    }

    /// Takes over links only.
    pub(super) fn adopt_links(&mut self) -> Result<(), Error> {
        let Some(links) = &self.links else {
            return Ok(());
        };
        for pinned in links.read()? {
            let found = of_pinned(&pinned)?;
            let row = self.row_of(found.index, &found.interface);
            let before = row.and_then(|row| self.rows[row].as_ref());
            let attachment = Attachment {
                fallback: before.and_then(|before| before.fallback.clone()),
                ..found
            };
            match row {
                Some(row) => self.rows[row] = Some(attachment.clone()),
                None => self.rows.push(Some(attachment.clone())),
            }
            self.attached.push((attachment, pinned.link));
        }
        Ok(())
    }

    /// The rows for the ledger.
    pub(super) fn rows(&self) -> Vec<Attachment> {
        self.rows.iter().flatten().cloned().collect()
    }

    /// Those that the program is on.
    pub(super) fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.iter().map(|(attachment, _)| attachment)
    }

    /// The name of a row of counters.
    pub(super) fn name(&self, row: usize) -> Option<&str> {
        let row = self.rows.get(row)?.as_ref()?;
        Some(&row.interface)
    }

    /// Rows in use.
    pub(super) fn row_count(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Attaches the program to an interface that was [reserved] for.
    ///
    /// [reserved]: Interfaces::reserve
    pub(super) fn attach(
        &mut self,
        object: &Object,
        interface: &str,
        reserved: Reserved,
        mode: Mode,
    ) -> Result<Attachment, Error> {
        let index = reserved.index;
        let create = |mode| create(object, interface, index, mode);
        let (link, mode, fallback) = match mode {
            Mode::Native => (create(LinkMode::Native)?, AttachedMode::Native, None),
            Mode::Generic => (create(LinkMode::Generic)?, AttachedMode::Generic, None),
            Mode::Auto => match create(LinkMode::Native) {
                Ok(link) => (link, AttachedMode::Native, None),
                Err(Error::Attach { reason, .. }) => {
                    let link = create(LinkMode::Generic)?;
                    (link, AttachedMode::Generic, Some(reason))
                }
                Err(error) => return Err(error),
            },
        };
        if let Some(links) = &self.links {
            // Until it is pinned, the link is gone with this process.
            links.keep(index, &link)?;
        }
        let attachment = Attachment {
            interface: interface.to_owned(),
            index,
            mode,
            fallback,
        };
        self.rows[reserved.row] = Some(attachment.clone());
        self.attached.push((attachment.clone(), link));
        Ok(attachment)
    }

    /// Takes the program off; false if it was not on.
    pub(super) fn detach(&mut self, interface: &str) -> Result<bool, Error> {
        let is_meant = |(attachment, _): &(Attachment, Link)| attachment.interface == interface;
        let Some(place) = self.attached.iter().position(is_meant) else {
            return Ok(false);
        };
        let (attachment, link) = &self.attached[place];
        let_go(link)?;
        if let Some(links) = &self.links {
            links.forget(attachment.index)?;
        }
        self.attached.remove(place);
        Ok(true)
    }

    /// Puts another program in the place of those that were taken over.
    pub(super) fn replace_program(&mut self, object: &Object) -> Result<(), Error> {
        let program = object.limiter()?;
        for (attachment, link) in &self.attached {
            match link.update(program) {
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
                updated => updated.map_err(|error| Error::Replace {
                    interface: attachment.interface.clone(),
                    source: error,
                })?,
            }
        }
        Ok(())
    }

    /// Gives links that have lost their pins new ones. Returns how many had.
    pub(super) fn mend(&self) -> Result<usize, Error> {
        let Some(links) = &self.links else {
            return Ok(0);
        };
        let mut mended = 0;
        for (attachment, link) in &self.attached {
            if !links.has(attachment.index) {
                links.keep(attachment.index, link)?;
                mended += 1;
            }
        }
        Ok(mended)
    }

    /// The factor under which no two attached interfaces share a place.
    pub(super) const fn factor(&self) -> u32 {
        self.factor
    }

    /// Gives the interface a row of counters, the one it had if it had one;
    /// [`Interfaces::factor`] may have changed.
    pub(super) fn reserve(&mut self, interface: &str) -> Result<Reserved, Error> {
        let index = check_free(interface)?;
        let named =
            |row: &Option<Attachment>| row.as_ref().is_some_and(|row| row.interface == interface);
        let row = match self.rows.iter().position(named) {
            Some(row) => row,
            None if self.rows.len() > self.capacity as usize => {
                return Err(Error::TooManyInterfaces {
                    interface: interface.to_owned(),
                    capacity: self.capacity,
                });
            }
            None => {
                self.rows.push(None);
                self.rows.len() - 1
            }
        };
        self.rows[row] = Some(Attachment {
            interface: interface.to_owned(),
            index,
            mode: AttachedMode::Generic,
            fallback: None,
        });
        let mut indices: Vec<u32> = self.attachments().map(|a| a.index).collect();
        indices.push(index);
        self.factor = distinct_factor(self.factor, &indices).unwrap_or(self.factor);
        Ok(Reserved { index, row })
    }

    /// Names the attached interfaces and a reserved one to the program.
    pub(super) fn place_all(&self, reserved: Reserved) -> Result<(), Error> {
        for (attachment, _) in &self.attached {
            let row = self.row_of(attachment.index, &attachment.interface);
            self.place(
                attachment.index,
                row.unwrap_or_default(),
                &attachment.interface,
            )?;
        }
        let name = self.name(reserved.row).unwrap_or_default();
        self.place(reserved.index, reserved.row, name)
    }

    /// The row of an interface: it may have been renamed, or removed and made
    /// again.
    fn row_of(&self, index: u32, interface: &str) -> Option<usize> {
        let find = |is_meant: &dyn Fn(&Attachment) -> bool| {
            let is_row = |row: &Option<Attachment>| row.as_ref().is_some_and(is_meant);
            self.rows.iter().position(is_row)
        };
        find(&|row| row.index == index && row.interface == interface)
            .or_else(|| find(&|row| row.index == index))
            .or_else(|| find(&|row| row.interface == interface))
    }

    fn place(&self, index: u32, row: usize, interface: &str) -> Result<(), Error> {
        let value = Interface {
            index,
            row: u16::try_from(row).unwrap_or_default(),
            flags: if interface == "lo" { LOOPBACK } else { 0 },
        };
        self.table
            .set(&interface_place(index, self.factor), &value)
            .map_err(Error::system("naming an interface to the program"))
    }
}

/// What a pinned link is attached to.
pub(super) fn of_pinned(pinned: &Pinned) -> Result<Attachment, Error> {
    match netlink::xdp_program(pinned.index) {
        Ok(Some(found)) if found.id == pinned.program => Ok(found.attachment),
        _ => Err(pinned.of_other_network().into()),
    }
}

/// Takes the program off the interface of a link, if that is still there.
pub(super) fn let_go(link: &Link) -> Result<(), Error> {
    match link.detach() {
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        detached => detached.map_err(Error::system("detaching the program")),
    }
}

/// The index of an interface without an XDP program.
pub(super) fn check_free(interface: &str) -> Result<u32, Error> {
    let index = netlink::index_of(interface)?;
    match netlink::xdp_program(index)? {
        Some(program) => Err(foreign(interface, Some(program.id))),
        None => Ok(index),
    }
}

/// An odd factor, `present` if possible, under which the places of `indices`
/// differ.
fn distinct_factor(present: u32, indices: &[u32]) -> Option<u32> {
    let distinct = |factor: &u32| {
        let mut places = [false; INTERFACE_PLACES as usize];
        indices.iter().all(|index| {
            let place = &mut places[interface_place(*index, *factor) as usize];
            !std::mem::replace(place, true)
        })
    };
    // Steps of the golden ratio visit the odd numbers without a pattern.
    let candidates = (0..100_000_u32).map(|i| i.wrapping_mul(0x9e37_79b9) | 1);
    std::iter::once(present)
        .filter(|factor| *factor != 1)
        .chain(candidates)
        .find(distinct)
}

fn create(object: &Object, interface: &str, index: u32, mode: LinkMode) -> Result<Link, Error> {
    let word = match mode {
        LinkMode::Native => "native",
        LinkMode::Generic => "generic",
    };
    Link::create(object.limiter()?, index, mode)
        .map_err(|error| attach_error(interface, index, word, &error))
}

fn attach_error(interface: &str, index: u32, mode: &'static str, error: &io::Error) -> Error {
    let reason = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            return Error::Permission {
                what: format!("attaching to `{interface}`"),
            };
        }
        Some(libc::ENODEV) => {
            return Error::NoInterface {
                interface: interface.to_owned(),
            };
        }
        Some(libc::EBUSY | libc::EEXIST) if let Ok(Some(program)) = netlink::xdp_program(index) => {
            return foreign(interface, Some(program.id));
        }
        _ => cause::in_words(error, index),
    };
    Error::Attach {
        interface: interface.to_owned(),
        mode,
        reason,
    }
}

fn foreign(interface: &str, id: Option<u32>) -> Error {
    Error::ForeignProgram {
        interface: interface.to_owned(),
        id: id.map(|id| format!(" (id {id})")).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_get_places_of_their_own() {
        let many: Vec<u32> = (0..64).map(|i| 3 + i * 256).collect();
        let factor = distinct_factor(1, &many[..16]).unwrap();
        let places: std::collections::HashSet<_> = many[..16]
            .iter()
            .map(|index| interface_place(*index, factor))
            .collect();
        assert_eq!(places.len(), 16);
        assert_eq!(distinct_factor(factor, &many[..16]), Some(factor));
    }
}
