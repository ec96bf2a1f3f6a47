//! Sorts the engine's one stream of events by pod.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_cri::{Engine, EngineEvent};
use tokio::sync::mpsc;

use crate::identity::PodUid;

type Routes = HashMap<PodUid, mpsc::UnboundedSender<EngineEvent>>;

/// Gives each pod its own engine events, in their order.
#[derive(Clone, Debug)]
pub struct EventRouter {
    routes: Arc<Mutex<Routes>>,
}

impl EventRouter {
    /// Begins to sort the engine's events. Ends with the engine's stream.
    pub fn start(engine: &dyn Engine) -> Self {
        let routes = Arc::new(Mutex::new(Routes::new()));
        let mut events = engine.events();
        let router = EventRouter { routes };
        let own = router.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                own.pass(event);
            }
        });
        router
    }

    /// The events of a pod, from now on. A later subscriber takes the place of an earlier one.
    pub fn subscribe(&self, uid: &PodUid) -> mpsc::UnboundedReceiver<EngineEvent> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().insert(uid.clone(), sender);
        receiver
    }

    fn pass(&self, event: EngineEvent) {
        let uid = PodUid(event.pod_uid.clone());
        let mut routes = self.lock();
        if let Some(route) = routes.get(&uid)
            && route.send(event).is_err()
        {
            routes.remove(&uid);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
