//! The registry of erasures. The first shard has it, as it has the registered sources.

use std::sync::{Arc, PoisonError};

use clickhouse::error::Error;

use super::{Number, Writer};
use crate::erasures::{Erasures, Registered};
use crate::error::{InsertError, ReadError};

impl Writer {
    /// Registers an erasure: who asks from now on finds it.
    pub(crate) async fn register(&self, rows: &[Registered]) -> Result<(), InsertError> {
        let shard = self.shards.of(0);
        let client = shard.durable(shard.asked().1.clone());
        let written = async {
            let mut insert = client.insert::<Registered>(&self.registry).await?;
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        Ok(written.await?)
    }

    /// Every erasure that was registered before this was asked.
    pub(crate) async fn erasures(&self) -> Result<Arc<Erasures>, ReadError> {
        Ok(self.registered().await?)
    }

    pub(super) async fn registered(&self) -> Result<Arc<Erasures>, Error> {
        let (shard, tables) = (self.shards.of(0), [self.registry.as_str()]);
        let sql = format!("SELECT count() AS number FROM {}", self.registry);
        let number = shard.ask(&tables, self.read_timeout, |client| async move {
            client.query_raw(&sql).fetch_one::<Number<u64>>().await
        });
        let number = number.await?.number;
        let known = || self.erasures.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Arc::clone(&known());
        if found.rows() == number {
            return Ok(found);
        }
        let sql = format!("SELECT ?fields FROM {}", self.registry);
        let rows = shard.ask(&tables, self.read_timeout, |client| async move {
            client.query(&sql).fetch_all::<Registered>().await
        });
        let found = Arc::new(Erasures::of(&rows.await?));
        *known() = Arc::clone(&found);
        Ok(found)
    }
}
