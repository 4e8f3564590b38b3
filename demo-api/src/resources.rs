//! All resources of this API.

use crate::products::Product;
use crate::resource::Resource;
use crate::users::User;

/// Their names; `DELETE /cache/{resource}` takes them.
pub(crate) const RESOURCES: [&str; 2] = [User::RESOURCE, Product::RESOURCE];
