# Copyright 2026 The modeling-valor authors. Licensed under the MIT License.
"""SQL of an index in PostgreSQL. Names are found by the search path: the schema of the index, then that of pgvector."""

from .postgres_condition import JSON_FUNCTIONS


TABLES = """
CREATE TABLE about (about json NOT NULL);
CREATE TABLE segments (
    id text PRIMARY KEY,
    source text NOT NULL,
    start float8 NOT NULL,
    "end" float8 NOT NULL,
    modalities text NOT NULL,
    size bigint,
    modified bigint,
    revision text NOT NULL,
    caption text,
    metadata jsonb NOT NULL,
    words tsvector GENERATED ALWAYS AS (to_tsvector('english', coalesce(caption, ''))) STORED
);
CREATE INDEX ON segments USING hash (source);  -- addresses may be longer than a B-tree takes
CREATE INDEX ON segments USING gin (words);
CREATE TABLE tokens (
    segment text REFERENCES segments ON DELETE CASCADE,
    place smallint,
    modality text NOT NULL,
    time real NOT NULL,
    weight real NOT NULL,
    embedding halfvec({width}) NOT NULL,
    PRIMARY KEY (segment, place)
);
CREATE TABLE files (
    source text NOT NULL,
    size bigint,
    modified bigint,
    segmentation text NOT NULL,
    seconds float8 NOT NULL,
    segments bigint NOT NULL
);
CREATE INDEX ON files USING hash (source);
""" + "".join(
    f"""
CREATE FUNCTION {name}(value jsonb, key text) RETURNS {result} IMMUTABLE PARALLEL SAFE
    RETURN CASE jsonb_typeof(value -> key) WHEN '{kind}' THEN (value ->> key)::{result} END;
"""
    for (name, result), kind in zip(JSON_FUNCTIONS.items(), ("string", "number", "number", "boolean"), strict=True)
)
"""Of an empty index. {width}: C of the embeddings."""

ABOUT = "SELECT about FROM about"

EXTENSION = """
SELECT nspname, extversion FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
WHERE extname = 'vector'
"""

ADD_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"

CAPTION_TOKENS = """
CREATE TABLE caption_tokens (LIKE tokens, PRIMARY KEY (segment, place));
ALTER TABLE caption_tokens ADD FOREIGN KEY (segment) REFERENCES segments ON DELETE CASCADE;
"""
"""A table of its own, so that searches by words never look into it. It is made once there are tokens of captions."""

COPY_TOKENS = "COPY {table} (segment, place, modality, time, weight, embedding) FROM STDIN (FORMAT BINARY)"

NEAREST = """
SELECT query.word, found.segment, found.similarity
FROM unnest(%(seekers)s::vector[]) WITH ORDINALITY AS query (vector, word)
CROSS JOIN LATERAL (
    SELECT tokens.segment, -({distance}) AS similarity
    FROM {tables}
    WHERE tokens.modality = ANY(%(letters)s) AND {condition}
    ORDER BY {distance}
    LIMIT %(n)s
) AS found
ORDER BY query.word, found.similarity DESC
"""
"""The n rows most similar to each of the vectors that seek."""

ALL = """
SELECT 1 AS word, tokens.segment, 0::float8 AS similarity
FROM {tables}
WHERE tokens.modality = ANY(%(letters)s) AND {condition}
"""
"""All rows, in place of `NEAREST` in `RANK`."""

RANK = """
WITH query AS MATERIALIZED (
    SELECT * FROM unnest(%(vectors)s::vector[], %(weights)s::float8[]) WITH ORDINALITY AS query (vector, weight, word)
),
nearest AS MATERIALIZED ({nearest}),
last AS (  -- similarity of the last row of each list, unless the list has all rows
    SELECT word, CASE WHEN count(*) < %(n)s::bigint THEN '-Infinity' ELSE min(similarity) END AS similarity
    FROM nearest GROUP BY word
),
pairs AS MATERIALIZED (  -- of all tokens of the candidates with all of the query; score fusion adds two scores
    SELECT
        segment,
        CASE WHEN %(by_score)s THEN modality ELSE '' END AS part,
        place,
        CASE WHEN %(uniform)s THEN 0 ELSE tokens.weight END AS logit,
        word,
        query.weight AS word_weight,
        -(embedding::vector <#> vector) AS similarity
    FROM (SELECT DISTINCT segment FROM nearest) AS candidates JOIN tokens USING (segment) CROSS JOIN query
    WHERE modality = ANY(%(letters)s)
),
of_words AS (
    SELECT segment, part, sum(word_weight * best) AS score
    FROM (
        SELECT segment, part, word_weight, max(similarity) AS best
        FROM pairs GROUP BY segment, part, word, word_weight
    ) AS words
    GROUP BY segment, part
),
of_tokens AS (  -- weights by a softmax over the tokens of the segment; exp of less than -700 would be an error
    SELECT segment, part, sum(exp(logit) * best) / sum(exp(logit)) AS score
    FROM (
        SELECT
            segment,
            part,
            greatest(logit - max(logit) OVER (PARTITION BY segment, part), -700) AS logit,
            greatest(max(similarity), %(least)s) AS best
        FROM pairs GROUP BY segment, part, place, logit
    ) AS tokens
    GROUP BY segment, part
)
SELECT
    segment,
    sum(of_words.score + of_tokens.score) / 2 AS score,
    (SELECT array_agg(similarity ORDER BY word) FROM last)
FROM of_words JOIN of_tokens USING (segment, part)
GROUP BY segment
ORDER BY score DESC, segment
LIMIT %(limit)s
"""
"""S of eq. 3 of the candidates: the segments that have a row in {nearest}."""

FIND_CAPTIONS = """
SELECT id, ts_rank(words, query, 1)::float8 AS score
FROM segments, (
    SELECT string_agg(quote_literal(lexeme), ' | ')::tsquery AS query FROM unnest(to_tsvector('english', %(words)s))
) AS asked
WHERE words @@ query AND {condition}
ORDER BY score DESC, id
LIMIT %(top)s
"""
