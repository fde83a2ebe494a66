//! An object as its author wrote it: metadata, spec, and what could not be read of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{FieldPath, Labels, Location, Name, ObjectRef};

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Identity, labels, age.
    pub meta: Meta,
    /// What the author wants.
    pub spec: Spec,
    /// Values that could not be read. The spec holds the field's default in their place, so whoever gives a field its
    /// meaning asks first whether it, or something below it, is defective.
    pub defects: Vec<Defect>,
}

impl Object {
    /// The first defect at or below a field.
    #[must_use]
    pub fn defect_within(&self, field: &FieldPath) -> Option<&Defect> {
        self.defects.iter().find(|defect| defect.field.is_within(field))
    }
}

/// A value of the wrong type or form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defect {
    /// Where.
    pub field: FieldPath,
    /// What is wrong and what to do.
    pub message: String,
}

/// What Kubernetes keeps about every object, as far as Chancery needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// Kind, cluster, namespace, name.
    pub id: ObjectRef,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<Name, Name>,
    /// `metadata.creationTimestamp`; manifests seldom carry one.
    pub created: Option<jiff::Timestamp>,
    /// `metadata.generation`, 0 where no API server counted.
    pub generation: i64,
    /// Where the object stands in a file, if it comes from one: the place of its first line.
    pub location: Option<Location>,
}

/// The spec of one kind.
///
/// Kinds that are read but not yet supported keep only what reporting and failing closed need.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// To be completed with one variant per kind.
    Empty,
}

/// A change of the inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An object is new or different.
    Put(Arc<Object>),
    /// An object is gone.
    Delete(ObjectRef),
}
