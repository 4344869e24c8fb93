//! Numbers that are the same in every run of the same seed (xorshift).

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// One of a few keys, so that changes meet.
    pub(crate) fn key(&mut self) -> String {
        format!("k{:02}", self.below(24))
    }
}
