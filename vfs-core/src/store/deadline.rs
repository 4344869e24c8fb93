//! Until when the caller of a store waits. A store may go on trying for longer than that, which helps nobody: one that can
//! ask here does, and gives up in time. It is no parameter, since only some stores try again by themselves; it goes with
//! the task, through all layers.

use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Option<Deadline>;
}

/// A moment after which nobody waits for an answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So much later than now. `None` when that is so late that it makes no difference.
    pub fn after(time: Duration) -> Option<Self> {
        Instant::now().checked_add(time).map(Self)
    }

    /// How much time is left until then.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Makes a call whose caller waits until then; with `None`, for as long as it takes.
pub async fn scope<F: Future>(deadline: Option<Deadline>, call: F) -> F::Output {
    DEADLINE.scope(deadline, call).await
}

/// Until when the caller of the present call waits, if it has said so.
pub fn current() -> Option<Deadline> {
    DEADLINE.try_with(|deadline| *deadline).ok().flatten()
}

/// How much longer the caller of the present call waits, if it has said so.
pub fn left() -> Option<Duration> {
    current().map(Deadline::left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_scope_counts_and_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            assert_eq!(left(), None);
            let soon = Deadline::after(Duration::from_secs(60));
            scope(soon, async {
                assert_eq!(current(), soon);
                assert!(left().is_some_and(|left| left <= Duration::from_secs(60)));
                scope(None, async { assert_eq!(left(), None) }).await;
                scope(Deadline::after(Duration::ZERO), async { assert_eq!(left(), Some(Duration::ZERO)) }).await;
                assert_eq!(current(), soon);
            })
            .await;
            assert_eq!(left(), None);
            assert_eq!(Deadline::after(Duration::MAX), None);
        });
    }
}
