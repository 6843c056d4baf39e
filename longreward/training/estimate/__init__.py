"""What a training needs: a memory formula without a device, measured micro batches with one."""
