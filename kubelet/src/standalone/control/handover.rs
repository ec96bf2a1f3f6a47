//! Patience with pods that change hands: who runs a pod has just ended, or has not come to it yet.

use std::ops::ControlFlow;
use std::time::Duration;

/// A pod that changes hands is looked at again after this,
const HANDOVER: Duration = Duration::from_millis(100);
/// so often. Who it goes to has no way to tell: it may not be there yet.
const HANDOVERS: u32 = 50;

/// Tries until something is settled (`Break`), or what was found every time counts as it is. An attempt is told whether another
/// may follow.
pub(super) async fn until_settled<T>(mut attempt: impl AsyncFnMut(bool) -> ControlFlow<T, T>) -> T {
    let mut left = HANDOVERS;
    loop {
        match attempt(left > 0).await {
            ControlFlow::Break(settled) => return settled,
            ControlFlow::Continue(found) if left == 0 => return found,
            ControlFlow::Continue(_) => left -= 1,
        }
        tokio::time::sleep(HANDOVER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_end_when_something_is_settled_or_patience_does() {
        for (settles_at, expected) in [
            (0, Ok(0)),
            (7, Ok(7)),
            (HANDOVERS, Ok(50)),
            (HANDOVERS + 1, Err(50)),
        ] {
            let mut attempts = 0;
            let outcome = until_settled(async |may_follow| {
                let this = attempts;
                attempts += 1;
                assert_eq!(may_follow, this < HANDOVERS);
                match this == settles_at {
                    true => ControlFlow::Break(Ok(this)),
                    false => ControlFlow::Continue(Err(this)),
                }
            });
            assert_eq!(outcome.await, expected);
        }
    }
}
