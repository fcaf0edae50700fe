//! What an operator can ask of the running gateway. Whoever runs it takes the orders, one after another.

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::reload::Outcome;

/// Something to do.
#[derive(Debug)]
pub enum Order {
    /// Read the config file again.
    Reload {
        /// The largest share of sessions, 0 to 1, that may get another home; `None` is what the config in force says.
        max_moved: Option<f64>,
        /// Told how it ended.
        done: oneshot::Sender<Outcome>,
    },
    /// Start the program again and hand the listeners over.
    Upgrade,
}

/// The way to whoever runs the gateway.
pub struct Orders {
    sender: mpsc::Sender<Order>,
    receiver: Mutex<Option<mpsc::Receiver<Order>>>,
}

impl Default for Orders {
    fn default() -> Orders {
        let (sender, receiver) = mpsc::channel(WAITING);
        Orders { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Orders {
    /// Reads the config file again. `max_moved`: see [`Order::Reload`].
    pub async fn reload(&self, max_moved: Option<f64>) -> Outcome {
        let (done, outcome) = oneshot::channel();
        // An error says that nobody takes orders any more, and so does one of the answer.
        let _ = self.sender.send(Order::Reload { max_moved, done }).await;
        outcome.await.unwrap_or_else(|_| Outcome::Failed("the gateway is about to end".to_owned()))
    }

    /// Starts the program again and hands the listeners over.
    pub async fn upgrade(&self) {
        let _ = self.sender.send(Order::Upgrade).await;
    }

    /// The orders, for whoever runs the gateway: the first who asks.
    pub fn take(&self) -> Option<mpsc::Receiver<Order>> {
        self.receiver.lock().take()
    }
}

/// Orders that may wait; who comes then waits with his.
const WAITING: usize = 16;
