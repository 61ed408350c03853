//! The program on interfaces.

use super::{
    error::Error,
    model::{AttachedMode, Attachment},
    netlink,
    object::Object,
    sys::Table,
};
use crate::policy::Mode;
use aya::programs::{
    ProgramError,
    links::FdLink,
    xdp::{XdpLink, XdpMode},
};
use limiter_common::layout::{INTERFACE_PLACES, Interface, LOOPBACK, interface_place};
use std::io;

/// The interfaces, their links and their rows of counters.
#[derive(Debug)]
pub(super) struct Interfaces {
    table: Table<u32, Interface>,
    /// By row; row 0 stands for every interface that is not known.
    rows: Vec<Option<String>>,
    attached: Vec<(Attachment, FdLink)>,
    factor: u32,
    capacity: u32,
}

impl Interfaces {
    pub(super) fn new(table: Table<u32, Interface>, capacity: u32) -> Self {
        Self {
            table,
            rows: vec![None],
            attached: Vec::new(),
            factor: 1,
            capacity,
        }
    }

    /// Those that the program is on.
    pub(super) fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attached.iter().map(|(attachment, _)| attachment)
    }

    /// The name of a row of counters.
    pub(super) fn name(&self, row: usize) -> Option<&str> {
        self.rows.get(row)?.as_deref()
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
        object: &mut Object,
        interface: &str,
        index: u32,
        mode: Mode,
    ) -> Result<Attachment, Error> {
        let (link, mode, fallback) = match mode {
            Mode::Native => (
                link(object, interface, index, XdpMode::Driver)?,
                AttachedMode::Native,
                None,
            ),
            Mode::Generic => (
                link(object, interface, index, XdpMode::Skb)?,
                AttachedMode::Generic,
                None,
            ),
            Mode::Auto => match link(object, interface, index, XdpMode::Driver) {
                Ok(link) => (link, AttachedMode::Native, None),
                Err(Error::Attach { reason, .. }) => {
                    let link = link(object, interface, index, XdpMode::Skb)?;
                    (link, AttachedMode::Generic, Some(reason))
                }
                Err(error) => return Err(error),
            },
        };
        let attachment = Attachment {
            interface: interface.to_owned(),
            index,
            mode,
            fallback,
        };
        self.attached.push((attachment.clone(), link));
        Ok(attachment)
    }

    /// Takes the program off; false if it was not on.
    pub(super) fn detach(&mut self, interface: &str) -> bool {
        let before = self.attached.len();
        // Dropping the link is what detaches.
        self.attached
            .retain(|(attachment, _)| attachment.interface != interface);
        self.attached.len() < before
    }

    /// The factor under which no two attached interfaces share a place.
    pub(super) const fn factor(&self) -> u32 {
        self.factor
    }

    /// Gives the interface a row of counters, the one it had if it had one, and
    /// returns its index; [`Interfaces::factor`] may have changed.
    pub(super) fn reserve(&mut self, interface: &str) -> Result<u32, Error> {
        let index = check_free(interface)?;
        let row = match self
            .rows
            .iter()
            .position(|row| row.as_deref() == Some(interface))
        {
            Some(row) => row,
            None if self.rows.len() > self.capacity as usize => {
                return Err(Error::TooManyInterfaces {
                    interface: interface.to_owned(),
                    capacity: self.capacity,
                });
            }
            None => {
                self.rows.push(Some(interface.to_owned()));
                self.rows.len() - 1
            }
        };
        let mut indices: Vec<u32> = self.attachments().map(|a| a.index).collect();
        indices.push(index);
        if let Some(factor) = distinct_factor(self.factor, &indices)
            && factor != self.factor
        {
            self.factor = factor;
            for attachment in self
                .attached
                .iter()
                .map(|(attachment, _)| attachment.clone())
            {
                let row = self
                    .rows
                    .iter()
                    .position(|row| row.as_ref() == Some(&attachment.interface));
                self.place(
                    attachment.index,
                    row.unwrap_or_default(),
                    &attachment.interface,
                )?;
            }
        }
        self.place(index, row, interface)?;
        Ok(index)
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

/// The index of an interface without an XDP program.
pub(super) fn check_free(interface: &str) -> Result<u32, Error> {
    let index = netlink::index_of(interface)?;
    match netlink::xdp_program(index)? {
        Some(id) => Err(foreign(interface, Some(id))),
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

fn link(object: &mut Object, interface: &str, index: u32, mode: XdpMode) -> Result<FdLink, Error> {
    let word = match mode {
        XdpMode::Driver => "native",
        _ => "generic",
    };
    let program = object.limiter()?;
    let attached = program
        .attach_to_if_index(index, mode)
        .and_then(|id| program.take_link(id));
    match attached {
        Ok(link) => keep(link, interface, word),
        Err(ProgramError::SyscallError(error)) => {
            Err(attach_error(interface, index, word, &error.io_error))
        }
        Err(error) => Err(Error::Attach {
            interface: interface.to_owned(),
            mode: word,
            reason: error.to_string(),
        }),
    }
}

/// Only a BPF link goes away with the process. aya falls back to the older
/// attachment, which stays, where the kernel finds the request invalid.
fn keep(link: XdpLink, interface: &str, mode: &'static str) -> Result<FdLink, Error> {
    link.try_into().map_err(|_| Error::Attach {
        interface: interface.to_owned(),
        mode,
        reason: "the driver finds the request invalid".to_owned(),
    })
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
        Some(libc::EBUSY | libc::EEXIST) => {
            let id = netlink::xdp_program(index).ok().flatten();
            return foreign(interface, id);
        }
        Some(libc::EOPNOTSUPP) => "its driver has no XDP".to_owned(),
        Some(libc::ERANGE) => "its MTU is too large for its driver's XDP".to_owned(),
        Some(libc::ENOMEM | libc::ENOSPC) => {
            "its driver has too few queues or too little memory".to_owned()
        }
        _ => error.to_string(),
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
