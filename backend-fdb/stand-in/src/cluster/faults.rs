//! Which requests go wrong, and how: by rates and a seed, or the next request of a kind as told.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::code::{self, Code};

/// The kinds of requests that a fault can be set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    ReadVersion,
    Read,
    Commit,
    Watch,
}

impl Kind {
    fn named(name: &str) -> Option<Self> {
        match name {
            "version" => Some(Self::ReadVersion),
            "read" => Some(Self::Read),
            "commit" => Some(Self::Commit),
            "watch" => Some(Self::Watch),
            _ => None,
        }
    }
}

/// What happens to a commit whose client gets an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It never takes effect.
    Lost,
    /// It is processed before the client gets the error.
    Done,
    /// It is processed at a later time, under the rules of then.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Error(Code, Fate),
    /// The reply takes this much longer.
    Slow(Duration),
    /// The cluster recovers at this moment: see [`super::Cluster`].
    Restart,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    random: Random,
    rates: HashMap<Kind, Vec<(u32, Fault)>>,
    /// Of 10,000 rows of range reads, how many end their reply.
    cuts: u32,
    next: HashMap<Kind, VecDeque<Option<Fault>>>,
}

/// A small, fast generator that gives the same numbers for the same seed (`SplitMix64`, public domain).
#[derive(Debug, Default)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }
}

impl Faults {
    /// What happens to this request.
    pub(crate) fn draw(&mut self, kind: Kind) -> Option<Fault> {
        if let Some(told) = self.next.get_mut(&kind).and_then(VecDeque::pop_front) {
            return told;
        }
        let rates = self.rates.get(&kind)?;
        let mut drawn = self.random.below(10_000);
        for (rate, fault) in rates {
            if drawn < u64::from(*rate) {
                return Some(*fault);
            }
            drawn -= u64::from(*rate);
        }
        None
    }

    /// Whether a reply to a range read ends after this row, as where a shard does.
    pub(crate) fn cuts(&mut self) -> bool {
        self.cuts > 0 && self.random.below(10_000) < u64::from(self.cuts)
    }

    /// Some time up to this.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.below(micros.saturating_add(1)))
    }

    pub(crate) fn clear(&mut self) {
        self.rates.clear();
        self.cuts = 0;
        self.next.clear();
    }

    /// `seed=N` and `KIND.FAULT=RATE` with rates in 1/10,000: replaces what was set before. Says what it does not know.
    pub(crate) fn set(&mut self, settings: &[&str]) -> Result<(), String> {
        self.clear();
        for setting in settings {
            let (name, value) = setting.split_once('=').ok_or_else(|| format!("no value in '{setting}'"))?;
            if name == "seed" {
                self.random = Random::new(value.parse().map_err(|_| format!("no number in '{setting}'"))?);
                continue;
            }
            let rate = value.parse().map_err(|_| format!("no number in '{setting}'"))?;
            if name == "range.cut" {
                self.cuts = rate;
                continue;
            }
            let (kind, fault) = named(name)?;
            self.rates.entry(kind).or_default().push((rate, fault));
        }
        Ok(())
    }

    /// `KIND.FAULT`, or `KIND.ok`: for the next requests of that kind, in the order given.
    pub(crate) fn tell(&mut self, names: &[&str]) -> Result<(), String> {
        for name in names {
            if let Some(kind) = name.strip_suffix(".ok").and_then(Kind::named) {
                self.next.entry(kind).or_default().push_back(None);
            } else {
                let (kind, fault) = named(name)?;
                self.next.entry(kind).or_default().push_back(Some(fault));
            }
        }
        Ok(())
    }
}

/// `commit.1021.late`, `read.process_behind`, `version.slow`, `commit.restart`, `read.slow.250` (milliseconds).
fn named(name: &str) -> Result<(Kind, Fault), String> {
    let unknown = || format!("unknown fault '{name}'");
    let mut parts = name.split('.');
    let kind = parts.next().and_then(Kind::named).ok_or_else(unknown)?;
    let what = parts.next().ok_or_else(unknown)?;
    let detail = parts.next();
    let fault = match (what, detail) {
        ("slow", None) => Fault::Slow(Duration::from_millis(20)),
        ("slow", Some(millis)) => Fault::Slow(Duration::from_millis(millis.parse().map_err(|_| unknown())?)),
        ("restart", None) => Fault::Restart,
        (error, fate) => {
            let fate = match fate {
                None | Some("lost") => Fate::Lost,
                Some("done") if kind == Kind::Commit => Fate::Done,
                Some("late") if kind == Kind::Commit => Fate::Late,
                Some(_) => return Err(unknown()),
            };
            let code = code::named(error).filter(|code| *code > 0).ok_or_else(unknown)?;
            // Other errors promise that the transaction was not committed.
            if fate != Fate::Lost && !code::says_nothing_of_commit(code) {
                return Err(format!("'{name}': after {code} a transaction is certainly not committed"));
            }
            Fault::Error(code, fate)
        }
    };
    if parts.next().is_some() { Err(unknown()) } else { Ok((kind, fault)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let draw = |seed: &str| {
            let mut faults = Faults::default();
            faults.set(&[&format!("seed={seed}"), "commit.1021.done=3000", "commit.not_committed=2000"]).unwrap();
            (0..200).map(|_| faults.draw(Kind::Commit)).collect::<Vec<_>>()
        };
        assert_eq!(draw("7"), draw("7"));
        assert_ne!(draw("7"), draw("8"));
        let drawn = draw("7");
        let unknown = drawn.iter().filter(|fault| **fault == Some(Fault::Error(1021, Fate::Done))).count();
        assert!((30..90).contains(&unknown), "{unknown} of 200 at a rate of 30 %");
        assert!(drawn.contains(&Some(Fault::Error(1020, Fate::Lost))) && drawn.contains(&None));
    }

    #[test]
    fn faults_told_come_first_and_in_order() {
        let mut faults = Faults::default();
        faults.tell(&["commit.ok", "commit.1039.late", "read.slow.5"]).unwrap();
        assert_eq!(faults.draw(Kind::Commit), None);
        assert_eq!(faults.draw(Kind::Commit), Some(Fault::Error(1039, Fate::Late)));
        assert_eq!(faults.draw(Kind::Commit), None);
        assert_eq!(faults.draw(Kind::Read), Some(Fault::Slow(Duration::from_millis(5))));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for wrong in ["commit", "commit.", "commit.no_such", "read.1007.late", "x.1007", "commit.1021.done.more"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
