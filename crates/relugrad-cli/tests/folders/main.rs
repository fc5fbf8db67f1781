//! Nothing of the user's is deleted or overwritten, whatever is in the folder and whoever else
//! works there.

mod commands;
mod foreign;
mod killed;
mod refused;
mod shared;
