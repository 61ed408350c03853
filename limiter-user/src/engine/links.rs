//! Lists through places: who was active least recently.

/// No place.
const NONE: u32 = u32::MAX;

/// The neighbours of each place, in one list at most.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<[u32; 2]>);

/// Where a list begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    first: u32,
    last: u32,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
        }
    }
}

impl Ends {
    /// The place that was pushed before all others.
    pub(super) fn last(self) -> Option<u32> {
        (self.last != NONE).then_some(self.last)
    }
}

impl Links {
    /// Makes room for so many places.
    pub(super) fn resize(&mut self, places: usize) {
        if places > self.0.capacity() {
            self.0.reserve_exact(places - self.0.len());
        }
        self.0.resize(places, [NONE; 2]);
    }

    /// Places that there is room for.
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<[u32; 2]>()
    }

    /// Puts a place that is in no list in front.
    pub(super) fn push(&mut self, ends: &mut Ends, place: u32) {
        self.0[place as usize] = [NONE, ends.first];
        match ends.first {
            NONE => ends.last = place,
            first => self.0[first as usize][0] = place,
        }
        ends.first = place;
    }

    /// Takes a place out of the list that it is in.
    pub(super) fn unlink(&mut self, ends: &mut Ends, place: u32) {
        let [before, after] = self.0[place as usize];
        match before {
            NONE => ends.first = after,
            before => self.0[before as usize][1] = after,
        }
        match after {
            NONE => ends.last = before,
            after => self.0[after as usize][0] = before,
        }
    }

    /// Puts a place of the list in front.
    pub(super) fn touch(&mut self, ends: &mut Ends, place: u32) {
        if ends.first != place {
            self.unlink(ends, place);
            self.push(ends, place);
        }
    }
}
