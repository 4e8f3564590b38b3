//! The list of switches in a cluster.

use super::super::reply::miscounted;
use super::super::scripts;
use super::sending::{OnAsk, step, typed};
use super::state::Cluster;
use crate::base::error::Error;

impl Cluster {
    /// Changes the list of switches at the node that has its slot, and returns it.
    pub(in crate::store::redis) async fn switch(
        &self,
        key: &str,
        args: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<String, Error> {
        let steps = [step(&scripts::SWITCH, key, args)];
        let done = self.run(&steps, OnAsk::Fail).await.pop();
        let (list, _) = typed(done.ok_or_else(miscounted)?)?;
        Ok(list)
    }
}
