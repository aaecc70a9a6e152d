"""Captions for a folder of images, with Spark.

    spark-submit spark_captions.py FOLDER OUTPUT [MODEL]

A task that fails is run again by Spark (spark.task.maxFailures), with the same answers."""
import os
import sys

from fastvlm.spark import captioner
from pyspark.sql import SparkSession


def main(folder, output, model=None):
    spark = SparkSession.builder.appName("captions").getOrCreate()
    # An Arrow batch holds that many files at once.
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "16")
    files = spark.read.format("binaryFile").load(os.path.abspath(folder))
    files = files.repartition(4 * spark.sparkContext.defaultParallelism)
    captions = files.mapInPandas(captioner(model, "Describe the image.", threads=1),
                                 "path string, caption string, error string")
    captions.write.mode("overwrite").json(os.path.abspath(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
