//! The contract for operations on many keys: by a pattern, and of a whole namespace.

use super::*;

impl Case<'_> {
    pub(super) async fn a_sweep_removes_what_its_filter_names(&self) {
        let (entity, derived) = (
            self.entity(),
            self.entry_ref("users:list:0", EntryKind::Derived),
        );
        let other = self.entry_ref("teams:1", EntryKind::Entity);
        for entry_ref in [&entity, &derived, &other] {
            self.stored(entry_ref, "value").await;
        }
        let before = self.header(&entity).await.stored;
        let sweep = |derived_only, stored_before| ScanFilter {
            pattern: format!("{}users:*", self.namespace),
            derived_only,
            stored_before,
            unless_larger_than: None,
            is_low_priority: false,
        };
        let run = async |filter: ScanFilter| self.ok(self.store.remove_matching(&filter).await);
        assert_eq!(
            run(sweep(false, Some(before))).await,
            0,
            "{}: none was stored before",
            self.name
        );
        assert_eq!(
            run(ScanFilter {
                unless_larger_than: Some(0),
                ..sweep(false, None)
            })
            .await,
            0,
            "{}",
            self.name
        );
        assert_eq!(run(sweep(true, None)).await, 1, "{}", self.name);
        assert!(
            self.is_gone(&derived).await && !self.is_gone(&entity).await,
            "{}",
            self.name
        );
        assert_eq!(
            run(sweep(false, Some(before.after(LONG)))).await,
            1,
            "{}",
            self.name
        );
        assert!(
            self.is_gone(&entity).await && !self.is_gone(&other).await,
            "{}",
            self.name
        );
    }

    pub(super) async fn a_pattern_is_of_its_namespace(&self) {
        let other = Case {
            store: self.store,
            name: self.name,
            namespace: format!("x{}", self.namespace),
        };
        let (own, others) = (self.entity(), other.entity());
        self.stored(&own, "own").await;
        other.stored(&others, "others").await;
        let token = self
            .granted(
                &self.entry_ref("users:9", EntryKind::Entity),
                Expected::Nothing,
                LONG,
            )
            .await;
        let filter = ScanFilter {
            pattern: format!("{}users:[0-9]", self.namespace),
            derived_only: false,
            stored_before: None,
            unless_larger_than: None,
            is_low_priority: false,
        };
        assert_eq!(
            self.ok(self.store.remove_matching(&filter).await),
            1,
            "{}",
            self.name
        );
        assert!(
            self.is_gone(&own).await && !other.is_gone(&others).await,
            "{}",
            self.name
        );
        let late = self
            .fill(
                &self.entry_ref("users:9", EntryKind::Entity),
                token,
                "late",
                LONG,
            )
            .await;
        assert_eq!(
            late,
            Filled::Refused,
            "{}: a load in flight goes too",
            self.name
        );
    }

    pub(super) async fn a_pattern_is_refused(&self) {
        let own = self.entity();
        self.stored(&own, "own").await;
        let everything = ScanFilter::all(&self.namespace, "*");
        let refused = self.store.remove_matching(&everything).await;
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(crate::ErrorKind::Unsupported), "{}", self.name);
        assert!(!self.is_gone(&own).await, "{}", self.name);
    }

    pub(super) async fn an_invalidation_of_a_namespace_spares_others(&self) {
        let other = Case {
            store: self.store,
            name: self.name,
            namespace: format!("x{}", self.namespace),
        };
        let (own, others) = (self.entity(), other.entity());
        self.stored(&own, "own").await;
        other.stored(&others, "others").await;
        let (before, strange_before) = (
            self.lookup(&own).await.stamp,
            other.lookup(&others).await.stamp,
        );
        let at = self.ok(self.store.invalidate_namespace(&self.namespace).await);
        assert!(at >= self.header(&own).await.stored, "{}", self.name);
        assert_ne!(self.lookup(&own).await.stamp, before, "{}", self.name);
        assert_eq!(
            other.lookup(&others).await.stamp,
            strange_before,
            "{}",
            self.name
        );
        assert!(!other.is_gone(&others).await, "{}", self.name);
    }
}
