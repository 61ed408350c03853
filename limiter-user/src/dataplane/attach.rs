//! The program on interfaces.

use super::{
    cause,
    error::Error,
    model::{AttachedMode, Attachment},
    netlink,
    object::Object,
    pins::{Links, Pinned},
    probe,
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

    /// Takes over the rows that another process gave, from row 1 on, and the links
    /// that it left, under names and modes that the kernel tells now.
    pub(super) fn adopt(
        &mut self,
        rows: Vec<Option<Attachment>>,
        factor: u32,
    ) -> Result<(), Error> {
        self.rows.extend(rows);
        self.factor = factor;
        let Some(links) = &self.links else {
            return Ok(());
        };
        for pinned in links.read()? {
            let found = of_pinned(&pinned)?;
            let mut rows = self.rows.iter().flatten();
            let before = rows.rfind(|row| row.index == found.index);
            let attachment = Attachment {
                fallback: before.and_then(|before| before.fallback.clone()),
                ..found
            };
            // Without a row it is counted with those that are not known.
            if let Ok(row) = self.claim_row(&attachment.interface) {
                self.rows[row] = Some(attachment.clone());
            }
            self.attached.push((attachment, pinned.link));
        }
        self.spread(None);
        self.place_all(None)
    }

    /// The rows for the ledger, from row 1 on.
    pub(super) fn rows(&self) -> Vec<Option<Attachment>> {
        self.rows.iter().skip(1).cloned().collect()
    }

    /// Finds a factor under which the places of all attached interfaces, and of
    /// one more, differ.
    fn spread(&mut self, more: Option<u32>) {
        let indices = self.attachments().map(|attachment| attachment.index);
        let indices: Vec<u32> = indices.chain(more).collect();
        self.factor = distinct_factor(self.factor, &indices).unwrap_or(self.factor);
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

    /// Forgets the links that somebody else has detached, and tells where they were.
    pub(super) fn forget_detached(&mut self) -> Result<Vec<Attachment>, Error> {
        let mut gone = Vec::new();
        for (place, (attachment, link)) in self.attached.iter().enumerate() {
            let info = link.info().map_err(Error::system("asking for a link"))?;
            // What vanished with its interface is no business of this.
            if info.interface == 0 && netlink::xdp_program(attachment.index).is_ok() {
                gone.push(place);
            }
        }
        let mut forgotten = Vec::new();
        for place in gone.into_iter().rev() {
            let (attachment, _) = self.attached.remove(place);
            if let Some(links) = &self.links {
                links.forget(attachment.index)?;
            }
            forgotten.push(attachment);
        }
        Ok(forgotten)
    }

    /// The factor under which no two attached interfaces share a place.
    pub(super) const fn factor(&self) -> u32 {
        self.factor
    }

    /// Gives the interface a row of counters, the one it had if it had one;
    /// [`Interfaces::factor`] may have changed.
    pub(super) fn reserve(&mut self, interface: &str) -> Result<Reserved, Error> {
        let index = check_free(interface)?;
        let row = self.claim_row(interface)?;
        self.rows[row] = Some(Attachment {
            interface: interface.to_owned(),
            index,
            mode: AttachedMode::Generic,
            fallback: None,
        });
        self.spread(Some(index));
        Ok(Reserved { index, row })
    }

    /// Names the attached interfaces and a reserved one to the program.
    pub(super) fn place_all(&self, reserved: Option<Reserved>) -> Result<(), Error> {
        for (attachment, _) in &self.attached {
            let row = self.row_of(&attachment.interface).unwrap_or_default();
            self.place(attachment.index, row, &attachment.interface)?;
        }
        let Some(Reserved { index, row }) = reserved else {
            return Ok(());
        };
        self.place(index, row, self.name(row).unwrap_or_default())
    }

    /// Gives an attached interface the name that it has now, and the row of
    /// that name: each packet is counted under the name of its time.
    pub(super) fn rename(&mut self, index: u32, interface: &str) -> Result<(), Error> {
        let row = self.claim_row(interface)?;
        self.place(index, row, interface)?;
        for (attachment, _) in &mut self.attached {
            if attachment.index == index {
                interface.clone_into(&mut attachment.interface);
                self.rows[row] = Some(attachment.clone());
            }
        }
        Ok(())
    }

    /// A row that no attached interface has any more, freed; its counters are
    /// to be put aside.
    pub(super) fn free_row(&mut self) -> Option<u32> {
        let is_vacant = |row: &Option<Attachment>| {
            row.as_ref().is_some_and(|row| {
                let mut attached = self.attached.iter();
                attached.all(|(attachment, _)| attachment.interface != row.interface)
            })
        };
        let row = self.rows.iter().position(is_vacant)?;
        self.rows[row] = None;
        Some(row as u32)
    }

    /// Whether packets of an interface of this name have been counted, maybe for the
    /// process before.
    pub(super) fn knows(&self, interface: &str) -> bool {
        self.row_of(interface).is_some()
    }

    /// The row of an interface of this name.
    fn row_of(&self, interface: &str) -> Option<usize> {
        let named =
            |row: &Option<Attachment>| row.as_ref().is_some_and(|row| row.interface == interface);
        self.rows.iter().position(named)
    }

    /// The same; if it has none, one that is free, or a new one.
    fn claim_row(&mut self, interface: &str) -> Result<usize, Error> {
        if let Some(row) = self.row_of(interface) {
            return Ok(row);
        }
        // Row 0 is nobody's.
        let free = self.rows.iter().skip(1).position(Option::is_none);
        if let Some(before) = free {
            return Ok(before + 1);
        }
        if self.rows.len() > self.capacity as usize {
            return Err(Error::TooManyInterfaces {
                interface: interface.to_owned(),
                capacity: self.capacity,
            });
        }
        self.rows.push(None);
        Ok(self.rows.len() - 1)
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
        Some(program) => Err(foreign(interface, program.id)),
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
            return foreign(interface, program.id);
        }
        _ => cause::in_words(error, index),
    };
    Error::Attach {
        interface: interface.to_owned(),
        mode,
        reason,
    }
}

fn foreign(interface: &str, id: u32) -> Error {
    let name = probe::program_name(id);
    let name = name.map(|name| format!(", `{name}`")).unwrap_or_default();
    Error::ForeignProgram {
        interface: interface.to_owned(),
        program: format!("id {id}{name}"),
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
