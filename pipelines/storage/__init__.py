"""Where bytes lie: folders here or in a store, who may write there, tars, parts, tables. The ground of the room."""
