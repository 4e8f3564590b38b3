//! Call sites, resources, and which function owns which keys.

mod call_site;
#[cfg(feature = "map")]
pub(crate) mod catalog;
mod instance;
pub(crate) mod learnt;
mod resource;
mod resource_ref;
mod resources;
mod site;

pub(crate) use self::call_site::{CallSite, Mistake, Role, report_loss};
pub(crate) use self::instance::Instance;
pub(crate) use self::resource::{Resource, ResourceSettings};
pub(crate) use self::resource_ref::{KnownResource, ResourceRef};
pub(crate) use self::resources::Registry;
#[cfg(feature = "map")]
pub use self::site::SITES;
pub use self::site::Site;
