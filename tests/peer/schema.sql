-- What a county would set up: small keys, one row a number, the newest one counts.
CREATE TABLE facility (
    facility integer PRIMARY KEY, code text UNIQUE NOT NULL, county text NOT NULL, city text NOT NULL
);
CREATE INDEX ON facility (county);
CREATE INDEX ON facility (city);
CREATE TABLE form (form smallint PRIMARY KEY, code text UNIQUE NOT NULL);
CREATE TABLE element (element smallint PRIMARY KEY, code text UNIQUE NOT NULL);
-- A facility's months lie together in the key, so that an area and a period are a few stretches of it. No foreign
-- keys: they would be looked up at every row.
CREATE TABLE counts (
    facility integer NOT NULL, period date NOT NULL, form smallint NOT NULL, element smallint NOT NULL,
    value integer NOT NULL, at timestamptz NOT NULL,
    PRIMARY KEY (facility, period, form, element)
);
-- Questions choose and group by its columns; the planner takes it apart.
CREATE VIEW counted AS
    SELECT f.county, f.city, c.period, c.element, c.value FROM counts c JOIN facility f USING (facility);
-- As fast to read as stored sums are, and as old as its last refresh.
CREATE MATERIALIZED VIEW by_county_month AS
    SELECT county, city, date_trunc('month', period)::date AS month, element, sum(value) AS value, count(*) AS reports
    FROM counted GROUP BY 1, 2, 3, 4
    WITH NO DATA;
CREATE UNIQUE INDEX ON by_county_month (county, month, element);
CREATE INDEX ON by_county_month (city, month);
