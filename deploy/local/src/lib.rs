#![doc = include_str!("../README.md")]

pub mod child;
pub mod data_folder;
pub mod engine;
pub mod fetch;
pub mod guard;
pub mod kafka;
pub mod up;
pub mod zookeeper;
