//! Who of this process gets a layer, and who waits for that.
//!
//! One download serves all that want the layer, but a registry that hangs serves nobody: who waits for a download in which
//! nothing moves gets the layer beside it, from its own registry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

use crate::digest::Digest;

/// How long nothing may come before those that wait help themselves. A download twice is the price of being wrong.
const STALL: Duration = Duration::from_secs(10);

/// The turns of all layers that are wanted.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    turns: Mutex<HashMap<Digest, Arc<Turn>>>,
}

/// The right to get a layer.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    held: Arc<tokio::sync::Mutex<()>>,
    /// When something came last; `None` while nothing is asked of a registry.
    moved: Mutex<Option<Instant>>,
    /// The one in which nothing moves. It is kept, so that others know of it as long as it is held.
    beside: Option<Arc<Turn>>,
}

/// A turn that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    turn: Arc<Turn>,
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits for the turn. Who waits has no thread, so that those who go on can have one.
    pub(crate) async fn take(&self, layer: &Digest) -> Taken {
        loop {
            let turn = self.of(layer);
            tokio::select! {
                held = Arc::clone(&turn.held).lock_owned() => return Taken { turn, _held: held },
                () = turn.stalled() => self.give_up(layer, &turn),
            }
        }
    }

    fn of(&self, layer: &Digest) -> Arc<Turn> {
        let mut turns = self.lock();
        turns.retain(|_, turn| turn.matters());
        Arc::clone(turns.entry(layer.clone()).or_default())
    }

    /// From now on there is another turn, unless somebody has given up before.
    fn give_up(&self, layer: &Digest, stalled: &Arc<Turn>) {
        let mut turns = self.lock();
        if let Some(turn) = turns.get_mut(layer).filter(|turn| Arc::ptr_eq(turn, stalled)) {
            *turn = Arc::new(Turn {
                beside: Some(Arc::clone(stalled)),
                ..Turn::default()
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Turn>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether anybody has it or waits for it, or for one that it is beside.
    fn matters(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || self.beside.as_ref().is_some_and(Self::matters)
    }

    async fn stalled(&self) {
        loop {
            let left = match *self.moved() {
                None => STALL,
                Some(at) => STALL.saturating_sub(at.elapsed()),
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn moved(&self) -> MutexGuard<'_, Option<Instant>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Something came, or was asked for.
    pub(crate) fn moves(&self) {
        *self.turn.moved() = Some(Instant::now());
    }

    /// Nothing more is asked of a registry: what takes time now is the disk.
    pub(crate) fn is_fetched(&self) {
        *self.turn.moved() = None;
    }

    /// Whether another one of this process has the layer's lock, and is not waited for.
    pub(crate) fn is_beside(&self) -> bool {
        self.turn.beside.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Digest {
        Digest::sha256(b"layer")
    }

    async fn is_free(turns: &Turns) -> Option<Taken> {
        tokio::time::timeout(Duration::from_millis(50), turns.take(&layer()))
            .await
            .ok()
    }

    #[tokio::test]
    async fn one_after_the_other_while_something_moves() {
        let turns = Turns::default();
        let first = turns.take(&layer()).await;
        first.moves();
        assert!(is_free(&turns).await.is_none());
        drop(first);
        let second = is_free(&turns).await.unwrap();
        assert!(!second.is_beside());
    }

    #[tokio::test]
    async fn beside_one_in_which_nothing_moves() {
        let turns = Turns::default();
        let first = turns.take(&layer()).await;
        *first.turn.moved() = Instant::now().checked_sub(STALL * 2);
        let second = is_free(&turns).await.unwrap();
        assert!(second.is_beside());
        // Those who come now wait for the second.
        second.moves();
        assert!(is_free(&turns).await.is_none());
        drop(second);
        // The first still has what it has.
        assert!(is_free(&turns).await.unwrap().is_beside());
        drop(first);
        assert!(!is_free(&turns).await.unwrap().is_beside());
    }
}
